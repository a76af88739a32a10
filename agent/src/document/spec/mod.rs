//! What is told to Incus: its own fields, verbatim, checked as far as a text can be.

mod backup;
mod config;
mod config_keys;
mod devices;
mod file;
mod host;
mod image;
mod instance;
mod os_service;
mod rules;
mod service;
mod tunnel;

use serde_json::{Map, Value};

use super::fields::{Reader, boolean, find, join, map, missing, one_of, word};
use super::yaml::{Entry, Node};
use super::{DocumentError, Kind, overlay};

pub use config_keys::needs_restart;
pub(super) use os_service::NAMES as OS_SERVICES;

/// One field of a kind's spec.
struct Field {
    name: &'static str,
    shape: Shape,
    /// What is missing where it is not there; `None`: it may be left out.
    required: Option<&'static str>,
}

/// What a field holds.
enum Shape {
    Word,
    OneOf(&'static [&'static str]),
    Boolean,
    Config,
    /// A map of words, any keys.
    Properties,
    Devices,
    Profiles,
    InstanceSource,
    ImageSource,
    Rules(&'static rules::Rules),
    /// Documents of other kinds, which [`parts`] reads.
    Parts,
}

const fn may(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        required: None,
    }
}

const fn must(name: &'static str, shape: Shape, what: &'static str) -> Field {
    Field {
        name,
        shape,
        required: Some(what),
    }
}

const DESCRIPTION: Field = may("description", Shape::Word);
const CONFIG: Field = may("config", Shape::Config);

const fn fields(kind: Kind) -> &'static [Field] {
    match kind {
        Kind::Incus => {
            const {
                &[
                    CONFIG,
                    may("storage_pools", Shape::Parts),
                    may("networks", Shape::Parts),
                    may("projects", Shape::Parts),
                    may("profiles", Shape::Parts),
                    may("storage_volumes", Shape::Parts),
                ]
            }
        }
        Kind::StoragePool => {
            const {
                &[
                    must(
                        "driver",
                        Shape::OneOf(&[
                            "dir",
                            "btrfs",
                            "lvm",
                            "lvmcluster",
                            "zfs",
                            "ceph",
                            "cephfs",
                            "cephobject",
                            "linstor",
                        ]),
                        "how the pool keeps its data, as dir, zfs, btrfs or lvm",
                    ),
                    DESCRIPTION,
                    CONFIG,
                ]
            }
        }
        Kind::NetworkAcl => {
            const {
                &[
                    DESCRIPTION,
                    CONFIG,
                    may("ingress", Shape::Rules(&rules::ACL)),
                    may("egress", Shape::Rules(&rules::ACL)),
                ]
            }
        }
        Kind::Network => {
            const {
                &[
                    may(
                        "type",
                        Shape::OneOf(&["bridge", "macvlan", "sriov", "physical", "ovn"]),
                    ),
                    DESCRIPTION,
                    CONFIG,
                ]
            }
        }
        Kind::NetworkForward => {
            const {
                &[
                    must("network", Shape::Word, "the network that it leads into"),
                    must("listen_address", Shape::Word, "the address that is forwarded"),
                    DESCRIPTION,
                    CONFIG,
                    may("ports", Shape::Rules(&rules::PORTS)),
                ]
            }
        }
        Kind::Project => const { &[DESCRIPTION, CONFIG] },
        // They read their own.
        Kind::Host
        | Kind::OsService
        | Kind::File
        | Kind::Service
        | Kind::Backup
        | Kind::Tunnel
        | Kind::Tenant
        | Kind::Template => &[],
        Kind::Profile => const { &[DESCRIPTION, CONFIG, may("devices", Shape::Devices)] },
        Kind::Volume => {
            const {
                &[
                    must("pool", Shape::Word, "the storage pool that it is in"),
                    may("content_type", Shape::OneOf(&["filesystem", "block", "iso"])),
                    DESCRIPTION,
                    CONFIG,
                ]
            }
        }
        Kind::Image => {
            const {
                &[
                    must(
                        "source",
                        Shape::ImageSource,
                        "where the image comes from, as {type: image, server: ..., alias: ...}",
                    ),
                    may("alias", Shape::Word),
                    may("properties", Shape::Properties),
                    may("auto_update", Shape::Boolean),
                    may("public", Shape::Boolean),
                ]
            }
        }
        Kind::Instance => {
            const {
                &[
                    may("type", Shape::OneOf(&["container", "virtual-machine"])),
                    DESCRIPTION,
                    may("architecture", Shape::Word),
                    may("profiles", Shape::Profiles),
                    CONFIG,
                    may("devices", Shape::Devices),
                    must(
                        "source",
                        Shape::InstanceSource,
                        "what the instance is made from, as {type: image, alias: ...}",
                    ),
                    may("ephemeral", Shape::Boolean),
                ]
            }
        }
    }
}

/// Reads the spec of a kind.
pub(super) fn read(
    reader: &mut Reader,
    kind: Kind,
    node: &Node,
) -> Result<Map<String, Value>, DocumentError> {
    match kind {
        Kind::Host => return super::host::read(reader, node),
        Kind::OsService => return os_service::read(reader, node),
        Kind::File => return file::read(reader, node),
        Kind::Service => return service::read(reader, node),
        Kind::Tunnel => return tunnel::read(reader, node),
        Kind::Backup => return backup::read(reader, node),
        Kind::Template => return super::template::read(reader, node),
        Kind::Tenant => return super::tenant::read(reader, node),
        _ => {}
    }
    let fields = fields(kind);
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    let entries = map(node, "spec")?;
    let complaint = format!("no such field for kind {kind}");
    reader.known(entries, "spec", &names, &complaint)?;
    let mut spec = Map::new();
    for field in fields {
        let path = join("spec", field.name);
        match (find(entries, field.name), field.required) {
            (Some(entry), _) => {
                spec.insert(field.name.into(), value(reader, kind, field, entry, &path)?);
            }
            (None, Some(what)) => return Err(missing(node, &path, what)),
            (None, None) => {}
        }
    }
    Ok(spec)
}

fn value(
    reader: &mut Reader,
    kind: Kind,
    field: &Field,
    entry: &Entry,
    path: &str,
) -> Result<Value, DocumentError> {
    let node = &entry.value;
    Ok(match field.shape {
        Shape::Word => word(node, path)?.into(),
        Shape::OneOf(words) => one_of(node, path, words)?.into(),
        Shape::Boolean => boolean(node, path)?.into(),
        Shape::Config => config::read(reader, kind, node)?.into(),
        Shape::Properties => config::properties(node, path)?.into(),
        Shape::Devices => devices::read(reader, node)?.into(),
        Shape::Profiles => instance::profiles(reader, entry)?.into(),
        Shape::InstanceSource => instance::source(reader, node)?.into(),
        Shape::ImageSource => image::source(reader, node)?.into(),
        Shape::Rules(rules) => rules.read(reader, node, path)?.into(),
        Shape::Parts => overlay::value(node),
    })
}
