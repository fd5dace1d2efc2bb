//! What is wanted (compose file, lock) and what is (observed state): plain data, no decisions.

pub mod asked;
pub mod carried;
pub mod compose;
pub mod container;
pub mod contents;
pub mod desired;
pub mod dotenv;
pub mod facts;
pub mod guard;
pub mod interpolate;
pub mod mounts;
pub mod observe;
pub mod observed;
pub mod pins;
pub mod rewrite;
pub mod services;
pub mod subnet;
pub mod twin;
pub mod verify;

pub use desired::Desired;
pub use observed::Observed;
