//! The reconciler.
mod desired;
mod observe;
mod ownership;
mod plan;
mod step;
