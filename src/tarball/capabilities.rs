//! What a file lets a program do that its starter may not: file capabilities, as the kernel keeps them and as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The attribute that the kernel keeps them in (capabilities(7), "File capabilities").
pub const ATTRIBUTE: &str = "security.capability";

/// Their names, by number (linux/capability.h).
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// The capabilities of a file. As text: `cap_net_raw=ep`, several clauses with spaces between them (cap_from_text(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Capabilities {
    /// What is permitted is in effect from the start.
    effective: bool,
    /// A bit for each number.
    permitted: u64,
    inheritable: u64,
}

/// Revision 2 of `struct vfs_cap_data` (linux/capability.h): a word with revision and the effective bit, then the lower halves of
/// permitted and inheritable, then the upper ones, all of them little-endian.
const REVISION: u32 = 0x0200_0000;
const EFFECTIVE: u32 = 1;

impl Capabilities {
    /// What the attribute holds.
    ///
    /// # Errors
    /// Why that cannot be kept: another revision, or no such value.
    pub fn from_attribute(value: &[u8]) -> Result<Self, &'static str> {
        let word = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let words = [0, 4, 8, 12, 16].map(word);
        let [Some(magic), Some(permitted), Some(inheritable), Some(upper), Some(upper_inheritable)] = words
        else {
            return Err("of a form that is not known");
        };
        if magic & !EFFECTIVE == 0x0300_0000 && value.len() == 24 {
            return Err("that count in one user namespace alone");
        }
        if magic & !EFFECTIVE != REVISION || value.len() != 20 {
            return Err("of a form that is not known");
        }
        let both = |lower: u32, upper: u32| u64::from(lower) | u64::from(upper) << 32;
        Ok(Self {
            effective: magic & EFFECTIVE != 0,
            permitted: both(permitted, upper),
            inheritable: both(inheritable, upper_inheritable),
        })
    }

    /// The same bytes again.
    pub fn to_attribute(self) -> [u8; 20] {
        let mut value = [0; 20];
        let half = |bits: u64, upper: bool| {
            let bits = bits.to_le_bytes();
            if upper { [bits[4], bits[5], bits[6], bits[7]] } else { [bits[0], bits[1], bits[2], bits[3]] }
        };
        let words = [
            (REVISION | u32::from(self.effective)).to_le_bytes(),
            half(self.permitted, false),
            half(self.inheritable, false),
            half(self.permitted, true),
            half(self.inheritable, true),
        ];
        value.chunks_exact_mut(4).zip(words).for_each(|(place, word)| place.copy_from_slice(&word));
        value
    }

    /// Whether they are in effect from the start, and the bits of what is permitted and inheritable.
    pub fn to_numbers(self) -> [u64; 3] {
        [self.effective.into(), self.permitted, self.inheritable]
    }

    /// What [`Capabilities::to_numbers`] gave.
    pub fn from_numbers([effective, permitted, inheritable]: [u64; 3]) -> Self {
        Self { effective: effective != 0, permitted, inheritable }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effective = if self.effective { "e" } else { "" };
        let clauses = [
            (self.permitted & self.inheritable, "ip"),
            (self.permitted & !self.inheritable, "p"),
            (self.inheritable & !self.permitted, "i"),
        ];
        let mut is_first = true;
        for (bits, flags) in clauses.into_iter().filter(|(bits, _)| *bits != 0) {
            let name =
                |number: usize| NAMES.get(number).map_or(number.to_string(), |name| (*name).to_owned());
            let names: Vec<String> = (0..64).filter(|number| bits >> number & 1 == 1).map(name).collect();
            let space = if is_first { "" } else { " " };
            write!(f, "{space}{}={effective}{flags}", names.join(","))?;
            is_first = false;
        }
        if is_first { f.write_str(if self.effective { "=e" } else { "=" }) } else { Ok(()) }
    }
}

impl From<Capabilities> for String {
    fn from(capabilities: Capabilities) -> Self {
        capabilities.to_string()
    }
}

impl TryFrom<String> for Capabilities {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Capabilities {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |name: &str| {
            let known = NAMES.iter().position(|known| *known == name);
            known.or_else(|| name.parse().ok().filter(|number| (NAMES.len()..64).contains(number)))
        };
        let [mut effective, mut permitted, mut inheritable] = [0_u64; 3];
        let mut nothing_in_effect = false;
        let mut clauses = 0;
        for clause in text.split_ascii_whitespace() {
            clauses += 1;
            let (names, flags) =
                clause.split_once(['=', '+']).ok_or("write it as getcap does, such as cap_net_raw=ep")?;
            let mut bits = 0_u64;
            for name in names.split(',').filter(|_| !names.is_empty()) {
                bits |= 1 << number(name).ok_or("there is no capability of this name")?;
            }
            if flags.bytes().any(|flag| !b"eip".contains(&flag)) {
                return Err("the letters behind the names are of e, i and p");
            }
            if names.is_empty() {
                nothing_in_effect = flags == "e";
                if !matches!(flags, "" | "e") {
                    return Err("no capability is named");
                }
            }
            for (flag, set) in [('e', &mut effective), ('p', &mut permitted), ('i', &mut inheritable)] {
                *set |= if flags.contains(flag) { bits } else { 0 };
            }
        }
        if clauses == 0 {
            return Err("write it as getcap does, such as cap_net_raw=ep");
        }
        // A file has one bit for all of them (cap_set_file(3)).
        if effective != 0 && effective != permitted | inheritable {
            return Err(
                "a file has all of its capabilities in effect, or none: `e` stands with each of them",
            );
        }
        Ok(Self { effective: effective != 0 || nothing_in_effect, permitted, inheritable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `setcap` of libcap wrote on a disk, and what `getcap` said of it.
    #[test]
    fn capabilities_are_read_and_written_as_libcap_does() {
        for (attribute, text) in [
            ("0100000200040000000000000000000000000000", "cap_net_bind_service=ep"),
            ("0100000200300000000000000000000000000000", "cap_net_admin,cap_net_raw=ep"),
            ("0000000200200000000000000000000000000000", "cap_net_raw=p"),
            ("0100000200200000002000000000000000000000", "cap_net_raw=eip"),
            ("0000000200200000010000000000000000000000", "cap_net_raw=p cap_chown=i"),
            ("0100000200000000000000008000000000000000", "cap_bpf=ep"),
            ("0000000200000000000000000000000000000000", "="),
        ] {
            let bytes: Vec<u8> = (0..attribute.len() / 2)
                .map(|at| u8::from_str_radix(&attribute[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let capabilities = Capabilities::from_attribute(&bytes).unwrap();
            assert_eq!(capabilities.to_string(), text);
            assert_eq!(text.parse(), Ok(capabilities));
            assert_eq!(capabilities.to_attribute().as_slice(), bytes);
            assert_eq!(Capabilities::from_numbers(capabilities.to_numbers()), capabilities);
        }
        assert_eq!("cap_net_raw+pe".parse::<Capabilities>(), "cap_net_raw=ep".parse());
        assert_eq!(
            "cap_net_raw+ep cap_net_admin+ep".parse::<Capabilities>(),
            "cap_net_admin,cap_net_raw=ep".parse()
        );
    }

    #[test]
    fn every_attribute_of_the_form_comes_back_through_its_text() {
        for permitted in [0, 1, 1 << 40, 1 << 41, u64::MAX] {
            for inheritable in [0, 2, u64::MAX - 1] {
                for effective in [0, 1] {
                    let capabilities = Capabilities::from_numbers([effective, permitted, inheritable]);
                    assert_eq!(capabilities.to_string().parse(), Ok(capabilities), "{capabilities}");
                    assert_eq!(Capabilities::from_attribute(&capabilities.to_attribute()), Ok(capabilities));
                }
            }
        }
    }

    #[test]
    fn what_is_no_capability_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "getcap"),
            ("cap_net_raw", "getcap"),
            ("net_raw=ep", "no capability of this name"),
            ("cap_net_raw,=ep", "no capability of this name"),
            ("64=ep", "no capability of this name"),
            ("cap_net_raw=x", "the letters"),
            ("=ep", "no capability is named"),
            ("cap_net_raw=ep cap_net_admin=p", "all of its capabilities"),
        ] {
            let error = text.parse::<Capabilities>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let mut value = "cap_net_raw=ep".parse::<Capabilities>().unwrap().to_attribute().to_vec();
        value.extend([0; 4]);
        Capabilities::from_attribute(&value).unwrap_err();
        value[3] = 3;
        assert!(Capabilities::from_attribute(&value).unwrap_err().contains("user namespace"));
        Capabilities::from_attribute(&value[..12]).unwrap_err();
        value[0] = 3;
        Capabilities::from_attribute(&value).unwrap_err();
    }
}
