//! The words of the OCI image specification: digest, reference, layer, image. Imports nothing of ours.

pub mod config;
pub mod digest;
pub mod image;
pub mod reference;

pub use config::{Config, Manifest};
pub use digest::{Digest, HashingReader, HashingWriter};
pub use image::{BlobSource, Descriptor, Image, Layer};
pub use reference::Reference;
