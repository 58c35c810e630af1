//! What the benchmarks share: the bundle, what they change on the host, their statistics.

pub mod bundle;
pub mod host;
pub mod numbers;
pub mod place;
pub mod process;
