//! Which machine a program is made for: one for another is refused before it is built in.

use std::path::Path;

use super::check::CheckError;
use super::tree::{Tree, TreeNode};

/// The machine that the header of an ELF file names (gABI, chapter 4, `e_machine`); `None` for what is no ELF file.
pub(super) fn of(head: &[u8]) -> Option<u16> {
    let head = head.strip_prefix(b"\x7fELF").and_then(|rest| rest.first_chunk::<16>())?;
    let bytes = [head[14], head[15]];
    // `EI_DATA`: 2 is the order of bytes of big machines.
    Some(if head[1] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

/// What a person calls it.
fn name(machine: u16) -> String {
    match machine {
        3 => "i386".to_owned(),
        8 => "mips".to_owned(),
        20 => "ppc".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loong64".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

/// Refuses a program or library of a layer that this architecture does not run; `origin` is the recipe or the package.
pub(super) fn check(layer: &str, tree: &Tree, architecture: &str, origin: &Path) -> Result<(), CheckError> {
    let of = |node: TreeNode| match node {
        TreeNode::File { content, .. } => content.machine,
        _ => None,
    };
    let foreign = tree
        .iter()
        .filter_map(|(path, node)| Some((path, name(of(node)?))))
        .find(|(_, machine)| machine != architecture);
    match foreign {
        Some((path, machine)) => Err(CheckError::Machine {
            layer: layer.to_owned(),
            path: path.into(),
            machine,
            architecture: architecture.to_owned(),
            origin: origin.to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_told_in_the_files_own_order_of_bytes() {
        let header = |order: u8, machine: [u8; 2]| {
            let mut head = b"\x7fELF\x02".to_vec();
            head.push(order);
            head.resize(18, 0);
            head.extend(machine);
            head
        };
        assert_eq!(of(&header(1, [62, 0])), Some(62));
        assert_eq!(of(&header(2, [0, 22])), Some(22));
        assert_eq!(of(&header(1, [62, 0])[..19]), None);
        assert_eq!(of(b"#!/bin/sh\nexit 0 and more of it"), None);
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(
            of(&own).map(name).as_deref(),
            Some(match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => panic!("tests do not know {other}"),
            })
        );
    }
}
