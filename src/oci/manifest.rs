//! Descriptor, manifest and index (image-spec): read as `oci-spec` reads them, written in one order of keys.
//!
//! `oci-spec` keeps annotations in hash maps, whose order differs from run to run: what decides a digest is written from
//! the types here, with sha256 digests alone.

use std::collections::BTreeMap;

use oci_spec::image as spec;
pub use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, Platform, platform, sizes};
use crate::diagnose::shown;

/// A content descriptor (image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "spec::Descriptor")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: MediaType,
    /// The digest of the blob as stored.
    pub digest: Digest,
    /// Its size in bytes, as stored.
    pub size: u64,
    /// Annotations, such as the layer's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// True for a gzipped layer, OCI's or docker's kind.
    pub fn is_gzip(&self) -> bool {
        match &self.media_type {
            MediaType::ImageLayerGzip => true,
            MediaType::Other(other) => other == "application/vnd.docker.image.rootfs.diff.tar.gzip",
            _ => false,
        }
    }

    /// True for a layer that is not compressed, OCI's or docker's kind.
    pub fn is_raw(&self) -> bool {
        match &self.media_type {
            MediaType::ImageLayer => true,
            MediaType::Other(other) => other == "application/vnd.docker.image.rootfs.diff.tar",
            _ => false,
        }
    }
}

impl TryFrom<spec::Descriptor> for Descriptor {
    type Error = super::digest::InvalidDigest;

    fn try_from(read: spec::Descriptor) -> Result<Self, Self::Error> {
        Ok(Self {
            media_type: read.media_type().clone(),
            digest: read.digest().to_string().parse()?,
            size: read.size(),
            annotations: read.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }
}

/// An image manifest (image-spec, manifest.md), in the order in which it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MediaType::ImageManifest`].
    pub media_type: MediaType,
    /// The config.
    pub config: Descriptor,
    /// The layers, the base first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest of these parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        Self { schema_version: 2, media_type: MediaType::ImageManifest, config, layers, annotations }
    }

    /// Reads a manifest, OCI's or docker's; what is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read: spec::ImageManifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let descriptor =
            |read: &spec::Descriptor| Descriptor::try_from(read.clone()).map_err(|error| error.to_string());
        let config = descriptor(read.config())?;
        let layers: Vec<Descriptor> = read.layers().iter().map(descriptor).collect::<Result<_, _>>()?;
        sizes::sum(layers.iter().chain([&config]).map(|part| part.size))
            .ok_or("its sizes are more than there can be")?;
        Ok(Self {
            schema_version: read.schema_version(),
            media_type: read.media_type().clone().unwrap_or(MediaType::ImageManifest),
            config,
            layers,
            annotations: read.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }
}

/// What stands where a manifest belongs, and is none of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instead {
    /// What it is, as a sentence.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

/// What these bytes are, which no image can be read of; `None` where nothing is known of them.
pub fn instead(bytes: &[u8]) -> Option<Instead> {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        let is_page = bytes.trim_ascii_start().starts_with(b"<");
        let what =
            if is_page { "a web page stands where its manifest belongs" } else { "its manifest is no JSON" };
        let hint =
            "see that a registry answers there: a proxy, or the page of a login, may answer in its place";
        return Some(Instead { what: what.to_owned(), hint });
    };
    if document["schemaVersion"] == 1 {
        let what = "its manifest is of schema 1, which is no longer read".to_owned();
        let hint = "push it again with a docker of today, or convert it: `skopeo copy --format oci docker://OLD docker://NEW`";
        return Some(Instead { what, hint });
    }
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let of_image = |kind: &&str| {
        !matches!(
            *kind,
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        )
    };
    let kind = text("/artifactType").or_else(|| {
        text("/config/mediaType")
            .or_else(|| text("/mediaType").filter(|kind| kind.contains("artifact")))
            .filter(of_image)
    })?;
    Some(Instead {
        what: format!("it is an artifact of the type {}", shown(&kind)),
        hint: "name an image; an artifact (a chart, a signature, a bill of materials) is read by the program that made it",
    })
}

/// The architecture of this machine, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// What an index, OCI's or docker's, has for this platform, or the only thing that it has for linux at all. Where no variant is asked
/// for, that is what names none or the usual one, else the only one. Of several that fit alike the first, as engines have it.
/// In the inner error: the platforms that it has instead.
pub fn for_platform(index: &[u8], wanted: &Platform) -> Result<Result<Descriptor, String>, String> {
    /// What is no better than another one of its kind.
    const SPECIAL: u8 = 2;
    let index: spec::ImageIndex = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let is_manifest = |read: &&spec::Descriptor| {
        matches!(
            read.media_type().as_ref(),
            "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json"
                | "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    };
    // What is no image (an attestation, say) is for the platform `unknown`.
    let of = |read: &spec::Descriptor| match read.platform() {
        Some(platform) => {
            (platform.os().to_string(), platform.architecture().to_string(), platform.variant().clone())
        }
        None => ("linux".to_owned(), String::new(), None),
    };
    let linux: Vec<(&spec::Descriptor, String, Option<String>)> = index
        .manifests()
        .iter()
        .filter(is_manifest)
        .map(|read| (read, of(read)))
        .filter(|(_, (os, ..))| os == "linux")
        .map(|(read, (_, architecture, variant))| (read, architecture, variant))
        .collect();
    let fits = linux.iter().filter_map(|(read, architecture, variant)| {
        Some((wanted.fit(architecture, variant.as_deref())?, *read))
    });
    let mut fits: Vec<(u8, &spec::Descriptor)> = fits.collect();
    fits.sort_by_key(|(fit, _)| *fit);
    let chosen = match fits.as_slice() {
        [(SPECIAL, _), _, ..] => None,
        [(_, best), ..] => Some(*best),
        [] => linux.first().filter(|_| linux.len() == 1).map(|(read, ..)| *read),
    };
    match chosen {
        Some(found) => Descriptor::try_from(found.clone()).map(Ok).map_err(|error| error.to_string()),
        None if linux.is_empty() => Ok(Err("nothing for linux".to_owned())),
        None => {
            let present = linux.iter().map(|(read, architecture, variant)| {
                format!("{} ({})", platform::shown("linux", architecture, variant.as_deref()), read.digest())
            });
            Ok(Err(crate::diagnose::first_few(&present.collect::<Vec<String>>())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, more: &str) -> String {
        let digest = Digest::of("x");
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":7{more}}}"#)
    }

    #[test]
    fn manifest_is_written_in_one_order_whatever_order_it_was_read_in() {
        let layer = descriptor(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            r#","annotations":{"z":"1","a":"2","m":"3"},"urls":["https://example.com/x"]"#,
        );
        let config = descriptor("application/vnd.oci.image.config.v1+json", "");
        let text = format!(
            r#"{{"annotations":{{"y":"1","b":"2"}},"layers":[{layer}],"config":{config},"schemaVersion":2,
                "mediaType":"application/vnd.oci.image.manifest.v1+json"}}"#
        );
        let written = serde_json::to_string(&Manifest::parse(text.as_bytes()).unwrap()).unwrap();
        let place = |part: &str| written.find(part).unwrap_or_else(|| panic!("{part}: {written}"));
        let order = [
            r#""schemaVersion":2"#,
            r#""mediaType""#,
            r#""config""#,
            r#""layers""#,
            r#""a":"2","m":"3","z":"1""#,
            r#""b":"2","y":"1""#,
        ];
        assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{written}");
        assert_eq!(Manifest::parse(written.as_bytes()), Manifest::parse(text.as_bytes()));
    }

    #[test]
    fn sizes_that_no_disk_holds_are_refused() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "");
        let config = descriptor("application/vnd.oci.image.config.v1+json", "");
        let of = |size: u64| {
            let layer = layer.replace("\"size\":7", &format!("\"size\":{size}"));
            format!(r#"{{"schemaVersion":2,"layers":[{layer},{layer}],"config":{config}}}"#)
        };
        assert!(Manifest::parse(of(1 << 40).as_bytes()).is_ok());
        for size in [1 << 56, i64::MAX as u64] {
            assert!(Manifest::parse(of(size).as_bytes()).is_err(), "{size}");
        }
    }

    #[test]
    fn what_is_no_manifest_of_an_image_is_known_by_its_kind() {
        let what = |bytes: &str| instead(bytes.as_bytes()).map(|instead| instead.what);
        let image = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
            descriptor("application/vnd.oci.image.config.v1+json", "")
        );
        assert_eq!(what(&image), None);
        assert_eq!(what(&image.replace("oci.image.config.v1+json", "docker.container.image.v1+json")), None);
        assert_eq!(what(r#"{"schemaVersion":2,"manifests":[]}"#), None);
        for (bytes, part) in [
            (" \n<!DOCTYPE html><html>", "a web page"),
            ("", "is no JSON"),
            ("404 page not found", "is no JSON"),
            (r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#, "of schema 1"),
            (
                &image.replace("oci.image.config", "cncf.helm.config"),
                "artifact of the type application/vnd.cncf.helm",
            ),
            (
                r#"{"schemaVersion":2,"artifactType":"x/y","config":{"mediaType":"application/vnd.oci.empty.v1+json"}}"#,
                "artifact of the type x/y",
            ),
            (
                r#"{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#,
                "artifact of the type application/vnd.oci.artifact",
            ),
        ] {
            let found = what(bytes).unwrap_or_else(|| panic!("{bytes}"));
            assert!(found.contains(part), "{bytes}: {found}");
        }
    }

    #[test]
    fn media_types_that_are_not_ocis_stay_as_they_are() {
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let read: Descriptor = serde_json::from_str(&descriptor(docker, "")).unwrap();
        assert_eq!(read.media_type, MediaType::Other(docker.to_owned()));
        assert_eq!(serde_json::to_string(&read).unwrap(), descriptor(docker, ""));
        let sha512 = descriptor(docker, "").replace("sha256:", "sha512:");
        assert!(serde_json::from_str::<Descriptor>(&sha512).is_err());
    }

    #[test]
    fn index_gives_what_fits_the_platform_and_never_merely_the_first() {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let entry = |kind: &str, os: &str, architecture: &str| {
            let digest = Digest::of(format!("{os}/{architecture}"));
            descriptor(kind, &format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#))
                .replace(&Digest::of("x").to_string(), &digest.to_string())
        };
        let (arm, amd) = (entry(docker, "linux", "arm64"), entry(oci, "linux", "amd64"));
        let (windows, proof) = (entry(oci, "windows", "amd64"), entry(oci, "unknown", "unknown"));
        let chosen = |entries: &[&str], architecture: &str| {
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            for_platform(index.as_bytes(), &Platform::linux(architecture)).unwrap().map(|found| found.digest)
        };
        assert_eq!(chosen(&[&windows, &arm, &amd], "amd64"), Ok(Digest::of("linux/amd64")));
        assert_eq!(chosen(&[&windows, &arm, &amd], "arm64"), Ok(Digest::of("linux/arm64")));
        assert_eq!(chosen(&[&proof, &arm, &windows], "amd64"), Ok(Digest::of("linux/arm64")), "the only one");
        let error = chosen(&[&arm, &amd, &proof], "riscv64").unwrap_err();
        assert!(error.contains("linux/arm64 (sha256:") && error.contains("linux/amd64 (sha256:"), "{error}");
        assert_eq!(chosen(&[&windows], "amd64"), Err("nothing for linux".to_owned()));
        assert!(for_platform(b"{}", &Platform::linux("amd64")).is_err());
    }

    #[test]
    fn index_gives_the_variant_that_is_asked_for_else_the_usual_one_and_no_odd_one_of_several() {
        let entry = |name: &str| {
            let (architecture, variant) = name.split_once('/').unwrap_or((name, ""));
            let digest = Digest::of(name);
            let variant =
                if variant.is_empty() { String::new() } else { format!(r#","variant":"{variant}""#) };
            let platform =
                format!(r#","platform":{{"os":"linux","architecture":"{architecture}"{variant}}}"#);
            descriptor("application/vnd.oci.image.manifest.v1+json", &platform)
                .replace(&Digest::of("x").to_string(), &digest.to_string())
        };
        let chosen = |entries: &[&str], wanted: &str| {
            let entries: Vec<String> = entries.iter().map(|name| entry(name)).collect();
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            let wanted: Platform = format!("linux/{wanted}").parse().unwrap();
            for_platform(index.as_bytes(), &wanted).unwrap().map(|found| found.digest)
        };
        for (entries, wanted, expected) in [
            (&["amd64/v3", "amd64"][..], "amd64", "amd64"),
            (&["amd64/v3", "amd64/v1", "arm64"], "amd64", "amd64/v1"),
            (&["arm64/v9", "arm64/v8"], "arm64", "arm64/v8"),
            (&["arm/v5", "arm/v6", "arm/v7"], "arm", "arm/v7"),
            (&["amd64/v3", "arm64"], "amd64", "amd64/v3"),
            (&["amd64", "amd64/v3"], "amd64/v3", "amd64/v3"),
            (&["amd64/v3", "amd64"], "amd64/v1", "amd64"),
            (&["arm/v6", "arm/v7"], "arm/v6", "arm/v6"),
            (&["arm/v6"], "arm/v7", "arm/v6"),
        ] {
            assert_eq!(chosen(entries, wanted), Ok(Digest::of(expected)), "{wanted} of {entries:?}");
        }
        for (entries, wanted) in [(&["amd64/v3", "amd64/v2"], "amd64"), (&["amd64", "amd64/v2"], "amd64/v3")]
        {
            let present = chosen(entries, wanted).unwrap_err();
            for name in entries {
                assert!(present.contains(&format!("linux/{name} ({})", Digest::of(name))), "{present}");
            }
        }
    }
}
