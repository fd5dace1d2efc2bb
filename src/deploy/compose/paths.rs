//! Paths on the host as a compose file writes them.

use std::path::{Path, PathBuf};

use super::error::{ComposeError, Result};
use crate::deploy::interpolate::Variables;
use crate::deploy::mounts::clean;
use crate::yaml::At;

/// `path` below `base`, without a leading `./`.
pub(super) fn join(base: &Path, path: &str) -> PathBuf {
    let path = path.strip_prefix("./").unwrap_or(path);
    if base == Path::new(".") { path.into() } else { base.join(path) }
}

/// An absolute path on the host: `~` is the user's home, relative ones start from the file's project folder.
pub(super) fn host_path(written: &str, at: &At, variables: &Variables) -> Result<String> {
    let path = match written.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = variables.shell.get("HOME").ok_or_else(|| {
                ComposeError::invalid_but(
                    at,
                    "`~` without a home folder",
                    "set HOME, or write the path in full",
                )
            })?;
            format!("{}{rest}", home.expose()).into()
        }
        Some(_) => return Err(ComposeError::invalid(at, format!("`{written}`: no other user's home"))),
        None => join(at.base(), written),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    path.to_str()
        .map(clean)
        .ok_or_else(|| ComposeError::invalid(at, format!("{} is no text", path.display())))
}
