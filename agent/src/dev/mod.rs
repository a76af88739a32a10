//! To come.
#[derive(clap::Args)]
pub struct DevArgs {}
pub fn run(_a: DevArgs) -> anyhow::Result<()> {
    todo!()
}
