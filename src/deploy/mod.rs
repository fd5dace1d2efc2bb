//! What is wanted (compose file, lock) and what is (observed state): plain data, no decisions.

pub mod desired;
pub mod observe;
pub mod observed;

pub use desired::Desired;
pub use observed::Observed;
