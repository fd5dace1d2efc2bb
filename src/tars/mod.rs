//! What TARS is: services and their ports, packages' names, configuration grammar, calls on the wire, the rule for `REBUILD`,
//! which server stands in for another.
//!
//! Knows nothing of images, engines or databases, and imports nothing of ours. Facts are those of TarsFramework
//! 3.0.17.

pub mod catalogue;
pub mod conf;
pub mod instance;
pub mod ping;
pub mod protocol;
pub mod rebuild;
pub mod registry;
pub mod sql;
pub mod version;
pub mod wire;

pub use catalogue::{Role, Servant, Service};
pub use instance::Instance;
pub use protocol::PROTOCOL;
