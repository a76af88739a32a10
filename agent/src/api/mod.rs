//! To come.
pub struct ApiContext;
#[derive(Default)]
pub struct ApiOptions {
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    pub progress_notify_interval: std::time::Duration,
    pub x: u8,
}
impl ApiContext {
    pub fn new(_n: crate::node::Node, _o: ApiOptions, _s: crate::shutdown::Shutdown) -> Self {
        todo!()
    }
}
pub fn router(_c: ApiContext) -> axum::Router {
    todo!()
}
