//! tarsup builds the container images of the TARS RPC framework and rolls them through a deployment.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tars`] | what TARS is: services and ports, configuration grammar, tars_ping, the `REBUILD` rule |
//! | `adopt` | containers that somebody else made → a deployment file |
//! | `oci` | the words of the OCI image specification: digest, reference, layer, image |
//! | `tarball` | tar files: told by magic, read with every extension, written by hand |
//! | `elf` | what a program or library asks of its loader, and what it offers |
//! | `contents` | the list of its files that an image carries |
//! | `compare` | what differs between two images, in services and files |
//! | `sbom` | what an image is made of, as a bill of materials |
//! | `build` | recipe → packages → layers → image |
//! | `store` | the local content store, an OCI layout |
//! | `transport` | where images come from and go to: layout, archive, engine |
//! | `deploy` | what is wanted (compose file, lock) and what is (observed state) |
//! | `upgrade` | plan, journal, gate: pure; `run` is the one loop that acts |
//! | `engine` | the Docker API as one trait, one method per call |
//! | `init` | PID 1 of the images |
//! | `limits` | what an input may have at most, each limit by name |
//! | `secretive` | a value of an environment, which no text shows |
//! | `paths` | a path in an image, and tables of such paths that take little memory |
//! | `cli` | arguments, wiring, reports |
//! | [`diagnose`] | what an expected error says: exit code, place, hint |
//!
//! ARCHITECTURE.md says who may import whom; `tests/it/house.rs` holds it.

pub mod diagnose;
pub mod tars;

#[cfg(feature = "host")]
pub mod adopt;
#[cfg(feature = "host")]
pub mod build;
#[cfg(feature = "host")]
pub mod cli;
#[cfg(feature = "host")]
pub mod compare;
#[cfg(feature = "host")]
pub mod contents;
#[cfg(feature = "host")]
pub mod deploy;
#[cfg(feature = "host")]
pub mod elf;
#[cfg(feature = "host")]
pub mod engine;
#[cfg(feature = "host")]
pub mod limits;
#[cfg(feature = "host")]
pub mod oci;
#[cfg(feature = "host")]
pub mod paths;
#[cfg(feature = "host")]
pub mod sbom;
#[cfg(feature = "host")]
pub mod secretive;
#[cfg(feature = "host")]
pub mod store;
#[cfg(feature = "host")]
pub mod tarball;
#[cfg(feature = "host")]
pub mod transport;
#[cfg(feature = "host")]
pub mod upgrade;
#[cfg(feature = "host")]
pub mod yaml;

#[cfg(feature = "init")]
pub mod init;
