//! When two values say the same in different words. Values are compared by meaning, and written verbatim.

use crate::document::Kind;

/// Whether what is wanted of a config key is what is there. A key that is not set and an empty one mean the same.
pub(super) fn config_agrees(kind: Kind, key: &str, wanted: Option<&str>, has: Option<&str>) -> bool {
    let (wanted, has) = (wanted.unwrap_or_default(), has.unwrap_or_default());
    // Incus chooses, and shows what it chose.
    let chosen =
        matches!(kind, Kind::Network | Kind::StoragePool) && wanted == "auto" && !matches!(has, "" | "none");
    chosen || values_agree(key, wanted, has)
}

fn values_agree(key: &str, left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    // Text that Incus hands on to somebody else: every character counts.
    let verbatim = [
        "user.",
        "environment.",
        "image.",
        "raw.",
        "cloud-init.",
        "smbios11.",
        "systemd.",
    ];
    if verbatim.iter().any(|prefix| key.starts_with(prefix)) {
        return false;
    }
    if key.starts_with("features.") {
        return is_true(left) == is_true(right);
    }
    let is_size = key.starts_with("limits.") || key == "size" || key.ends_with(".size");
    booleans_agree(left, right) || (is_size && sizes_agree(left, right))
}

/// Whether two values of a device's field mean the same.
pub(super) fn device_field_agrees(field: &str, left: Option<&str>, right: Option<&str>) -> bool {
    let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
    let is_size = field == "size" || field.starts_with("size.") || field.starts_with("limits.");
    left == right || booleans_agree(left, right) || (is_size && sizes_agree(left, right))
}

/// Incus' words for true.
pub(super) fn is_true(value: &str) -> bool {
    ["true", "1", "yes", "on"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

fn boolean(value: &str) -> Option<bool> {
    let is_false = ["false", "0", "no", "off"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word));
    if is_true(value) {
        Some(true)
    } else {
        is_false.then_some(false)
    }
}

fn booleans_agree(left: &str, right: &str) -> bool {
    boolean(left).is_some() && boolean(left) == boolean(right)
}

fn sizes_agree(left: &str, right: &str) -> bool {
    size_bytes(left).is_some() && size_bytes(left) == size_bytes(right)
}

/// A size as Incus reads it: digits and a unit, with powers of 1000 (`MB`) or of 1024 (`MiB`). Rates
/// (`10Mbit`) use the same prefixes.
fn size_bytes(value: &str) -> Option<u128> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at_checked(digits)?;
    let number: u128 = number.parse().ok()?;
    let (unit, bits) = unit
        .strip_suffix("bit")
        .map_or((unit, false), |unit| (unit, true));
    let unit = if bits {
        unit
    } else {
        unit.strip_suffix('B').unwrap_or(unit)
    };
    let factor: u128 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_by_meaning() {
        for (key, left, right, agree) in [
            ("limits.memory", "256MiB", "268435456", true),
            ("limits.memory", "0256MiB", "256MiB", true),
            ("limits.memory", "1GiB", "1024MiB", true),
            ("limits.memory", "1GB", "1GiB", false),
            ("limits.memory", "50%", "50%", true),
            ("limits.memory", "50%", "50", false),
            ("limits.cpu", "2", "0-1", false),
            ("limits.cpu", "2", "02", true),
            ("security.nesting", "true", "1", true),
            ("security.nesting", "True", "yes", true),
            ("security.nesting", "true", "false", false),
            ("security.nesting", "false", "", false),
            ("features.images", "false", "", true),
            ("features.images", "true", "", false),
            ("user.version", "1", "true", false),
            ("user.size", "1GiB", "1024MiB", false),
            ("cloud-init.user-data", "yes", "true", false),
            ("user.empty", "", "", true),
            (
                "limits.memory",
                "99999999999999999999999999999999999999999EiB",
                "1",
                false,
            ),
            ("limits.memory", "é", "1", false),
        ] {
            assert_eq!(
                config_agrees(Kind::Instance, key, Some(left), Some(right)),
                agree,
                "{key}: {left} and {right}"
            );
            assert_eq!(
                config_agrees(Kind::Instance, key, Some(right), Some(left)),
                agree,
                "{key}: {right} and {left}"
            );
        }
        assert!(config_agrees(Kind::Instance, "limits.cpu", None, Some("")));
        assert!(!config_agrees(Kind::Instance, "limits.cpu", None, Some("1")));
        for (has, agree) in [("10.1.2.1/24", true), ("none", false), ("", false)] {
            let agrees = config_agrees(Kind::Network, "ipv4.address", Some("auto"), Some(has));
            assert_eq!(agrees, agree, "{has}");
        }
    }

    #[test]
    fn device_fields_agree_by_meaning() {
        for (field, left, right, agree) in [
            ("size", "10GiB", "10240MiB", true),
            ("size.state", "1GiB", "1024MiB", true),
            ("limits.max", "10Mbit", "10000kbit", true),
            ("limits.max", "10Mbit", "10MB", true),
            ("readonly", "true", "on", true),
            ("source", "1GiB", "1024MiB", false),
            ("mode", "0660", "660", false),
        ] {
            assert_eq!(
                device_field_agrees(field, Some(left), Some(right)),
                agree,
                "{field}: {left} and {right}"
            );
        }
    }
}
