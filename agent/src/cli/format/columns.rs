//! Columns without lines around them: two spaces apart, headings in capitals, numbers as they come.

use comfy_table::{ContentArrangement, Table, presets};

/// Renders rows under headings. A column without any content is left out, so that a rare remark costs no width.
pub(crate) fn columns<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let wanted: Vec<usize> = (0..N)
        .filter(|&column| rows.iter().any(|row| !row[column].is_empty()))
        .collect();
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(wanted.iter().map(|&column| headings[column]));
    for row in rows {
        table.add_row(wanted.iter().map(|&column| row[column].as_str()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// `1024` as `1,024`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Sizes as etcdctl writes them: `20 kB`, `1.5 MB`; two digits where the first stands alone.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let bytes = u64::try_from(bytes).unwrap_or(0);
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut scale: u64 = 1_000;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if bytes / 1_000 < scale {
            break;
        }
        scale *= 1_000;
        unit = larger;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn empty_columns_are_left_out() {
        let rows = [
            ["instance".into(), "web".into(), String::new(), "Ready".into()],
            ["profile".into(), "w".into(), String::new(), String::new()],
        ];
        expect![[r#"
            KIND      NAME  PHASE
            instance  web   Ready
            profile   w
        "#]]
        .assert_eq(&columns(["KIND", "NAME", "MESSAGE", "PHASE"], &rows));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn sizes_are_etcdctls() {
        assert_eq!(
            [-1, 0, 999, 1_000, 20_480, 1_500_000, 82_000_000, i64::MAX].map(size),
            [
                "0 B", "0 B", "999 B", "1.0 kB", "20 kB", "1.5 MB", "82 MB", "9.2 EB"
            ]
        );
    }
}
