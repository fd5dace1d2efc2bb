//! The words of the OCI image specification: digest, reference, layer, image. Imports nothing of ours.

pub mod config;
pub mod digest;
pub mod exact;
pub mod image;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod sizes;
pub mod tars;

pub use config::Config;
pub use digest::{Digest, HashingReader, HashingWriter};
pub use image::{BlobSource, Image, Layer};
pub use manifest::{Descriptor, Manifest, MediaType};
pub use platform::Platform;
pub use reference::Reference;
pub use tars::{TarImage, TarLayer, TarSource};
