//! Programs and libraries as a linker writes them, down to what a loader reads; and bases that hold them.

use std::path::Path;

/// An ELF file of 64 bits: header, program headers, names, versions, dynamic section.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// `PT_INTERP`; a library has none.
    pub interpreter: Option<&'a str>,
    /// `DT_NEEDED`.
    pub needed: &'a [&'a str],
    /// `DT_RUNPATH`.
    pub runpath: &'a str,
    /// `DT_RPATH`.
    pub rpath: &'a str,
    /// Library → versions that it must define.
    pub versions: &'a [(&'a str, &'a [&'a str])],
    /// Versions that it defines.
    pub exports: &'a [&'a str],
    /// `DT_SONAME`.
    pub soname: &'a str,
    /// The names that it defines for others.
    pub symbols: &'a [&'a str],
    /// `e_machine`.
    pub machine: u16,
    /// The build id of GNU's linkers; none where it is empty.
    pub build_id: &'a [u8],
}

/// The loader of Debian's programs.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A library that defines nothing.
pub const LIBRARY: Program<'static> = Program {
    interpreter: None,
    needed: &[],
    runpath: "",
    rpath: "",
    versions: &[],
    exports: &[],
    soname: "",
    symbols: &[],
    machine: 62,
    build_id: &[],
};

/// A program that needs its loader alone.
pub const PROGRAM: Program<'static> = Program { interpreter: Some(LOADER), ..LIBRARY };

struct Names(Vec<u8>);

impl Names {
    fn add(&mut self, name: &str) -> u32 {
        let at = u32::try_from(self.0.len()).unwrap();
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        at
    }
}

impl Program<'_> {
    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut names = Names(vec![0]);
        let half = |value: usize| u16::try_from(value).unwrap().to_le_bytes();
        let word = |value: u32| value.to_le_bytes();
        let (mut needs, mut defines) = (Vec::new(), Vec::new());
        for (at, (library, versions)) in self.versions.iter().enumerate() {
            let length = u32::try_from(16 * (versions.len() + 1)).unwrap();
            needs.extend([half(1), half(versions.len())].concat());
            let next = if at + 1 == self.versions.len() { 0 } else { length };
            needs.extend([word(names.add(library)), word(16), word(next)].concat());
            for (at, version) in versions.iter().enumerate() {
                let next = if at + 1 == versions.len() { 0 } else { 16 };
                needs.extend([word(0), [half(0), half(2)].concat().try_into().unwrap()].concat());
                needs.extend([word(names.add(version)), word(next)].concat());
            }
        }
        for (at, version) in self.exports.iter().enumerate() {
            // The first one is the library itself.
            let flags = usize::from(at == 0);
            let next = if at + 1 == self.exports.len() { 0 } else { 28 };
            defines.extend([half(1), half(flags), half(at + 1), half(1)].concat());
            defines.extend([word(0), word(20), word(next), word(names.add(version)), word(0)].concat());
        }
        let mut dynamic: Vec<(u64, u64)> =
            self.needed.iter().map(|name| (1, names.add(name).into())).collect();
        let mut symbols = if self.symbols.is_empty() { Vec::new() } else { vec![0; 24] };
        for symbol in self.symbols {
            // A function of the first section that all see.
            symbols.extend([word(names.add(symbol)), [0x12, 0, 1, 0]].concat());
            symbols.extend([0; 16]);
        }
        for (tag, folders) in [(29, self.runpath), (15, self.rpath), (14, self.soname)] {
            if !folders.is_empty() {
                dynamic.push((tag, names.add(folders).into()));
            }
        }
        let interpreter = self.interpreter.map(|loader| u64::from(names.add(loader)));
        let start = 64 + 4 * 56;
        let strings = start;
        let needs_at = (strings + names.0.len()).next_multiple_of(8);
        let defines_at = needs_at + needs.len();
        let symbols_at = (defines_at + defines.len()).next_multiple_of(8);
        let hash_at = symbols_at + symbols.len();
        // No bucket, and as many chains as there are symbols.
        let count = u32::try_from(symbols.len() / 24).unwrap();
        let hash = if symbols.is_empty() { Vec::new() } else { [word(0), word(count)].concat() };
        if !symbols.is_empty() {
            dynamic.extend([(6, symbols_at as u64), (4, hash_at as u64)]);
        }
        let dynamic_at = (hash_at + hash.len()).next_multiple_of(8);
        dynamic.push((5, strings as u64));
        if !needs.is_empty() {
            dynamic.extend([(0x6fff_fffe, needs_at as u64), (0x6fff_ffff, self.versions.len() as u64)]);
        }
        if !defines.is_empty() {
            dynamic.extend([(0x6fff_fffc, defines_at as u64), (0x6fff_fffd, self.exports.len() as u64)]);
        }
        dynamic.push((0, 0));
        let note_at = dynamic_at + 16 * dynamic.len();
        let mut note = Vec::new();
        if !self.build_id.is_empty() {
            note.extend([word(4), word(u32::try_from(self.build_id.len()).unwrap()), word(3)].concat());
            note.extend(b"GNU\0");
            note.extend(self.build_id);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        let end = note_at + note.len();

        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([half(3), half(self.machine.into())].concat());
        file.extend(word(1));
        for value in [0_u64, 64, 0] {
            file.extend(value.to_le_bytes());
        }
        file.extend(word(0));
        for value in [64, 56, 4, 64, 0, 0] {
            file.extend(half(value));
        }
        let loader = interpreter.map_or(0, |at| strings as u64 + at);
        let length = self.interpreter.map_or(0, |loader| loader.len() as u64 + 1);
        for (kind, offset, size) in [
            (1, 0, end as u64),
            (2, dynamic_at as u64, (note_at - dynamic_at) as u64),
            (if note.is_empty() { 0 } else { 4 }, note_at as u64, note.len() as u64),
            (if interpreter.is_some() { 3 } else { 0 }, loader, length),
        ] {
            file.extend([word(kind), word(4)].concat());
            for value in [offset, offset, offset, size, size, if kind == 4 { 4 } else { 1 }] {
                file.extend(value.to_le_bytes());
            }
        }
        file.extend(&names.0);
        file.resize(needs_at, 0);
        file.extend(needs);
        file.extend(defines);
        file.resize(symbols_at, 0);
        file.extend(symbols);
        file.extend(hash);
        file.resize(dynamic_at, 0);
        for (tag, value) in dynamic {
            file.extend([tag.to_le_bytes(), value.to_le_bytes()].concat());
        }
        file.extend(note);
        file
    }
}

/// What lies in a base.
pub enum Lies<'a> {
    /// A folder.
    Folder,
    /// A link.
    Link(&'a str),
    /// A file.
    File(Vec<u8>),
}

/// Writes a root file system.
pub fn write_base(path: &Path, entries: &[(&str, Lies<'_>)]) {
    std::fs::write(path, tar_of(entries)).unwrap();
}

/// A tar of these entries.
pub fn tar_of(entries: &[(&str, Lies<'_>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, lies) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        match lies {
            Lies::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, format!("{name}/"), &[][..]).unwrap();
            }
            Lies::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, name, target).unwrap();
            }
            Lies::File(bytes) => {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// dpkg's list.
pub const STATUS: &str = "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.2.0-14\nDescription: x\n \
    more of it\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13\n";

/// A small Debian: merged `/usr`, a loader, libc and libstdc++ in their folders, `/opt/lib` in `ld.so.conf`.
pub fn debian(further: Vec<(&'static str, Lies<'static>)>) -> Vec<(&'static str, Lies<'static>)> {
    let libc = Program { exports: &["libc.so.6", "GLIBC_2.34", "GLIBC_2.36", "GLIBC_PRIVATE"], ..LIBRARY };
    let exports = ["libstdc++.so.6", "GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "CXXABI_1.3"];
    let libstdcxx = Program { exports: &exports, needed: &["libc.so.6"], ..LIBRARY };
    let mut all = vec![
        ("usr", Lies::Folder),
        ("usr/lib", Lies::Folder),
        ("usr/lib64", Lies::Folder),
        ("usr/lib/x86_64-linux-gnu", Lies::Folder),
        ("lib", Lies::Link("usr/lib")),
        ("lib64", Lies::Link("usr/lib64")),
        ("etc", Lies::Folder),
        ("etc/ld.so.conf", Lies::File(b"include /etc/ld.so.conf.d/*.conf\n".to_vec())),
        ("etc/ld.so.conf.d/opt.conf", Lies::File(b"# ours\n/opt/lib\n".to_vec())),
        ("opt", Lies::Folder),
        ("opt/lib", Lies::Folder),
        ("var/lib/dpkg/status", Lies::File(STATUS.as_bytes().to_vec())),
        ("usr/lib64/ld-linux-x86-64.so.2", Lies::Link("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")),
        ("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", Lies::File(LIBRARY.bytes())),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", Lies::File(libc.bytes())),
        ("usr/lib/x86_64-linux-gnu/libstdc++.so.6", Lies::Link("libstdc++.so.6.0.30")),
        ("usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30", Lies::File(libstdcxx.bytes())),
    ];
    all.extend(further);
    all
}
