//! What TARS is: services and their ports, packages' names, configuration grammar, tars_ping, the rule for `REBUILD`.
//!
//! Knows nothing of images, engines or databases, and imports nothing of ours. Facts are those of TarsFramework
//! 3.0.17.

pub mod catalogue;
pub mod conf;
pub mod ping;
pub mod protocol;
pub mod rebuild;
pub mod version;

pub use catalogue::{Role, Servant, Service};
pub use protocol::PROTOCOL;
