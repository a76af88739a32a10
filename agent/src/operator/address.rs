//! An instance's addresses, out of the state that Incus shows. Pure.

use std::net::IpAddr;

use serde_json::Value;

/// Every address that others can reach, IPv4 first, each family as Incus lists it.
pub(super) fn addresses(state: &Value) -> Vec<IpAddr> {
    let networks = state.get("network").and_then(Value::as_object);
    let mut addresses: Vec<IpAddr> = networks
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "lo")
        .filter_map(|(_, network)| network.get("addresses")?.as_array())
        .flatten()
        .filter(|address| address.get("scope").and_then(Value::as_str) == Some("global"))
        .filter_map(|address| address.get("address")?.as_str()?.parse().ok())
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_others_reach_are_found() {
        let address = |family: &str, address: &str, scope: &str| json!({"family": family, "address": address, "scope": scope});
        let state = json!({"network": {
            "lo": {"addresses": [address("inet", "127.0.0.1", "local")]},
            "eth0": {"addresses": [
                address("inet6", "fd00::2", "global"),
                address("inet6", "fe80::1", "link"),
                address("inet", "10.0.0.2", "global"),
                address("inet", "no address", "global"),
            ]},
        }});
        let found: Vec<String> = addresses(&state).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.2", "fd00::2"]);
        assert_eq!(addresses(&json!({"network": null})), Vec::<IpAddr>::new());
    }
}
