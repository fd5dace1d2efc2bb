//! What an ELF file asks of its loader and what it offers to others: its dynamic section, as ld.so reads it.
//!
//! Found by the program headers, since a loader never looks at sections. Only the places that are asked for are read, each
//! once and within a bound, so that neither a large library nor one that lies costs more than another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ::elf::abi;
use ::elf::dynamic::Dyn;
use ::elf::endian::{AnyEndian, EndianParse as _};
use ::elf::file::{Class, ELF32_EHDR_TAILSIZE, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use ::elf::gnu_symver::{VerDefIterator, VerNeedIterator};
use ::elf::note::{Note, NoteGnuBuildId, NoteIterator};
use ::elf::parse::{ParseAt, ParsingTable};
use ::elf::segment::ProgramHeader;
use ::elf::symbol::Symbol;
use serde::{Deserialize, Serialize};

/// A program or library. Names are as written in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Elf {
    /// `e_machine` (gABI, chapter 4).
    pub machine: u16,
    /// True for one of 32 bits.
    #[serde(skip_serializing_if = "is_false")]
    pub narrow: bool,
    /// The build id of GNU's linkers, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// `PT_INTERP`: the loader; none for a library or a static program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// `DT_NEEDED`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<String>,
    /// `DT_RUNPATH`, folder by folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runpath: Vec<String>,
    /// `DT_RPATH`, folder by folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rpath: Vec<String>,
    /// Library → the versions of symbols that it must define, without those that may be missing (`VER_FLG_WEAK`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, BTreeSet<String>>,
    /// The versions of symbols that it defines.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub exports: BTreeSet<String>,
}

impl Elf {
    /// What it takes in memory, in bytes, about: each name in a map or list of its own.
    pub fn weight(&self) -> u64 {
        /// What a name takes besides its bytes.
        const BESIDE: u64 = 56;
        let versions =
            self.versions.iter().flat_map(|(name, versions)| std::iter::once(name).chain(versions));
        let names =
            self.needed.iter().chain(&self.runpath).chain(&self.rpath).chain(&self.exports).chain(versions);
        names.map(|name| name.len() as u64 + BESIDE).sum::<u64>() + size_of::<Self>() as u64
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Bytes that are read at a place.
pub trait ReadAt {
    /// Fills the buffer from this place on; answers how many bytes there were.
    ///
    /// # Errors
    /// What reading fails with.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let length = buffer.len().min(self.len() - from);
        buffer[..length].copy_from_slice(&self[from..from + length]);
        Ok(length)
    }
}

/// The largest program header table, dynamic section, and list of versions that are read, in bytes. A loader of glibc takes
/// larger ones; no linker makes them.
const LARGEST_TABLE: u64 = 64 * 1024;
/// The longest name or search path, in bytes.
const LONGEST_NAME: usize = 4096;
/// The most segments with notes that are looked at, and the longest build id, in bytes: linkers make two and twenty.
const MOST_NOTES: usize = 8;
const LONGEST_BUILD_ID: usize = 64;
/// The most names and versions of one file.
const MOST_NAMES: usize = 4096;
/// What all names of one file may take together, in bytes; less in a small file, where only overlapping ones could.
const MOST_TEXT: u64 = 64 * 1024;

/// The most symbols of one library that are read, and what their names may take together, in bytes.
const MOST_SYMBOLS: u64 = 100_000;
const MOST_SYMBOL_TEXT: u64 = 16 << 20;

/// What a library offers to whatever is linked with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// `DT_SONAME`: the name under which it is asked for.
    pub soname: Option<String>,
    /// The names that it defines for others, as the linker knows them.
    pub symbols: BTreeSet<String>,
}

/// What a library offers; `None` for what no loader takes, and for more symbols than are read.
///
/// # Errors
/// What reading fails with.
pub fn offered<R: ReadAt + ?Sized>(file: &R, size: u64) -> io::Result<Option<Offered>> {
    match Reading::new(file, size).and_then(Reading::offered) {
        Ok(offered) => Ok(Some(offered)),
        Err(Problem::Unfit) => Ok(None),
        Err(Problem::Io(error)) => Err(error),
    }
}

/// What a program or library says of itself; `None` for what no loader takes: another kind of file, or one that is damaged.
///
/// # Errors
/// What reading fails with.
pub fn read<R: ReadAt + ?Sized>(file: &R, size: u64) -> io::Result<Option<Elf>> {
    match Reading::new(file, size).and_then(Reading::elf) {
        Ok(elf) => Ok(Some(elf)),
        Err(Problem::Unfit) => Ok(None),
        Err(Problem::Io(error)) => Err(error),
    }
}

/// Why there is nothing to tell.
enum Problem {
    Unfit,
    Io(io::Error),
}

impl From<::elf::parse::ParseError> for Problem {
    fn from(_: ::elf::parse::ParseError) -> Self {
        Self::Unfit
    }
}

type Result<T> = std::result::Result<T, Problem>;

struct Reading<'f, R: ?Sized> {
    file: Bounded<'f, R>,
    header: FileHeader<AnyEndian>,
    segments: Vec<ProgramHeader>,
    /// Where names lie in the file.
    strings: u64,
    /// How many bytes of names may still be taken.
    text: u64,
    names: usize,
}

/// What the dynamic section says.
#[derive(Default)]
struct Dynamic {
    needed: Vec<u64>,
    runpath: Option<u64>,
    rpath: Option<u64>,
    strings: Option<u64>,
    needs: (Option<u64>, u64),
    defines: (Option<u64>, u64),
    soname: Option<u64>,
    symbols: Option<u64>,
    hash: Option<u64>,
    gnu_hash: Option<u64>,
}

impl<'f, R: ReadAt + ?Sized> Reading<'f, R> {
    fn new(file: &'f R, size: u64) -> Result<Self> {
        let file = Bounded { file, size };
        let mut start = [0; 64];
        let read = file.fill(0, &mut start)?;
        let start = &start[..read];
        if read < abi::EI_NIDENT {
            return Err(Problem::Unfit);
        }
        let ident = parse_ident::<AnyEndian>(start)?;
        let tail = if ident.1 == Class::ELF32 { ELF32_EHDR_TAILSIZE } else { ELF64_EHDR_TAILSIZE };
        let tail = start.get(abi::EI_NIDENT..abi::EI_NIDENT + tail).ok_or(Problem::Unfit)?;
        let header = FileHeader::parse_tail(ident, tail)?;
        if !matches!(header.e_type, abi::ET_EXEC | abi::ET_DYN) {
            return Err(Problem::Unfit);
        }
        if usize::from(header.e_phentsize) != ProgramHeader::size_for(header.class) {
            return Err(Problem::Unfit);
        }
        let length = u64::from(header.e_phnum) * u64::from(header.e_phentsize);
        let table = file.table(header.e_phoff, length)?;
        let segments = ParsingTable::new(header.endianness, header.class, &table).iter().collect();
        Ok(Self { file, header, segments, strings: 0, text: size.min(MOST_TEXT), names: 0 })
    }

    fn elf(mut self) -> Result<Elf> {
        let narrow = self.header.class == Class::ELF32;
        let mut elf = Elf { machine: self.header.e_machine, narrow, ..Elf::default() };
        let segment = |kind| move |segment: &&ProgramHeader| segment.p_type == kind && segment.p_filesz > 0;
        if let Some(interpreter) = self.segments.iter().find(segment(abi::PT_INTERP)).copied() {
            elf.interpreter = Some(self.text(interpreter.p_offset)?);
        }
        elf.build_id = self.build_id()?;
        let Some(found) = self.segments.iter().find(segment(abi::PT_DYNAMIC)).copied() else {
            return Ok(elf);
        };
        let dynamic = self.dynamic(&found)?;
        let Some(strings) = dynamic.strings else { return Ok(elf) };
        self.strings = self.place(strings).ok_or(Problem::Unfit)?.0;
        for name in &dynamic.needed {
            elf.needed.push(self.name(*name)?);
        }
        for (from, to) in [(dynamic.runpath, &mut elf.runpath), (dynamic.rpath, &mut elf.rpath)] {
            if let Some(from) = from {
                to.extend(self.name(from)?.split(':').map(str::to_owned));
            }
        }
        elf.versions = self.needs(dynamic.needs)?;
        elf.exports = self.defines(dynamic.defines)?;
        Ok(elf)
    }

    fn offered(mut self) -> Result<Offered> {
        self.text = self.file.size.min(MOST_SYMBOL_TEXT);
        let mut offered = Offered::default();
        let segment = self.segments.iter().find(|segment| segment.p_type == abi::PT_DYNAMIC).copied();
        let Some(segment) = segment.filter(|segment| segment.p_filesz > 0) else { return Ok(offered) };
        let dynamic = self.dynamic(&segment)?;
        let Some(strings) = dynamic.strings else { return Ok(offered) };
        self.strings = self.place(strings).ok_or(Problem::Unfit)?.0;
        offered.soname = dynamic.soname.map(|name| self.name(name)).transpose()?;
        let Some(table) = dynamic.symbols else { return Ok(offered) };
        let table = self.place(table).ok_or(Problem::Unfit)?.0;
        let count = self.symbol_count(&dynamic)?;
        if count > MOST_SYMBOLS {
            return Err(Problem::Unfit);
        }
        let (endian, class) = (self.header.endianness, self.header.class);
        let entry = Symbol::size_for(class) as u64;
        let at_once = LARGEST_TABLE / entry;
        for from in (0..count).step_by(usize::try_from(at_once).unwrap_or(1)) {
            let length = at_once.min(count - from) * entry;
            let bytes = self.file.table(table.checked_add(from * entry).ok_or(Problem::Unfit)?, length)?;
            for symbol in ParsingTable::<_, Symbol>::new(endian, class, &bytes).iter() {
                let is_for_others = matches!(symbol.st_bind(), abi::STB_GLOBAL | abi::STB_WEAK)
                    && matches!(symbol.st_vis(), abi::STV_DEFAULT | abi::STV_PROTECTED);
                if is_for_others && !symbol.is_undefined() {
                    let name = self.strings.checked_add(symbol.st_name.into()).ok_or(Problem::Unfit)?;
                    offered.symbols.insert(self.text(name)?);
                }
            }
        }
        Ok(offered)
    }

    /// How many symbols there are, the tables to find them by say: a table of symbols has no end of its own (gABI, chapter 5).
    fn symbol_count(&self, dynamic: &Dynamic) -> Result<u64> {
        if let Some(hash) = dynamic.hash {
            return Ok(self.words(self.place(hash).ok_or(Problem::Unfit)?.0, 2)?[1].into());
        }
        let Some(hash) = dynamic.gnu_hash else { return Ok(0) };
        let at = self.place(hash).ok_or(Problem::Unfit)?.0;
        let head = self.words(at, 3)?;
        let [buckets, first, bloom] = [0, 1, 2].map(|index: usize| u64::from(head[index]));
        let word = if self.header.class == Class::ELF32 { 4 } else { 8 };
        let start = at.checked_add(16 + bloom * word).ok_or(Problem::Unfit)?;
        let mut last = 0;
        for from in (0..buckets.min(MOST_SYMBOLS)).step_by(1024) {
            let words = self.words(start + from * 4, 1024.min(buckets - from))?;
            last = words.into_iter().map(u64::from).fold(last, u64::max);
        }
        if last < first {
            return Ok(0);
        }
        // The chain of the last bucket ends where its lowest bit is set.
        let chains = start.checked_add(buckets * 4).ok_or(Problem::Unfit)?;
        while last <= MOST_SYMBOLS {
            if self.words(chains + (last - first) * 4, 1)?[0] & 1 == 1 {
                return Ok(last + 1);
            }
            last += 1;
        }
        Err(Problem::Unfit)
    }

    fn words(&self, at: u64, count: u64) -> Result<Vec<u32>> {
        let bytes = self.file.table(at, count * 4)?;
        let mut offset = 0;
        (0..count).map(|_| Ok(self.header.endianness.parse_u32_at(&mut offset, &bytes)?)).collect()
    }

    /// A loader does not ask for notes: what is damaged in them is no reason to take a file for none.
    fn build_id(&self) -> Result<Option<String>> {
        let notes = self.segments.iter().filter(|segment| segment.p_type == abi::PT_NOTE);
        for segment in notes.take(MOST_NOTES) {
            let bytes = match self.file.table(segment.p_offset, segment.p_filesz) {
                Ok(bytes) => bytes,
                Err(Problem::Unfit) => continue,
                Err(error) => return Err(error),
            };
            let align = usize::try_from(segment.p_align).unwrap_or(0).clamp(4, 8);
            for note in NoteIterator::new(self.header.endianness, self.header.class, align, &bytes) {
                if let Note::GnuBuildId(NoteGnuBuildId(id)) = note
                    && (1..=LONGEST_BUILD_ID).contains(&id.len())
                {
                    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
                    return Ok(Some(id.iter().fold(String::new(), hex)));
                }
            }
        }
        Ok(None)
    }

    fn dynamic(&self, segment: &ProgramHeader) -> Result<Dynamic> {
        let table = self.file.table(segment.p_offset, segment.p_filesz)?;
        let entries = ParsingTable::<_, Dyn>::new(self.header.endianness, self.header.class, &table);
        let mut dynamic = Dynamic::default();
        for entry in entries.iter().take_while(|entry| entry.d_tag != abi::DT_NULL) {
            let value = entry.d_val();
            match entry.d_tag {
                abi::DT_NEEDED => dynamic.needed.push(value),
                abi::DT_RUNPATH => dynamic.runpath = Some(value),
                abi::DT_RPATH => dynamic.rpath = Some(value),
                abi::DT_STRTAB => dynamic.strings = Some(value),
                abi::DT_VERNEED => dynamic.needs.0 = Some(value),
                abi::DT_VERNEEDNUM => dynamic.needs.1 = value,
                abi::DT_VERDEF => dynamic.defines.0 = Some(value),
                abi::DT_VERDEFNUM => dynamic.defines.1 = value,
                abi::DT_SONAME => dynamic.soname = Some(value),
                abi::DT_SYMTAB => dynamic.symbols = Some(value),
                abi::DT_HASH => dynamic.hash = Some(value),
                abi::DT_GNU_HASH => dynamic.gnu_hash = Some(value),
                _ => {}
            }
        }
        Ok(dynamic)
    }

    fn needs(&mut self, (address, count): (Option<u64>, u64)) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut found = BTreeMap::new();
        let Some(address) = address else { return Ok(found) };
        let bytes = self.versions(address)?;
        let (endian, class) = (self.header.endianness, self.header.class);
        for (need, versions) in VerNeedIterator::new(endian, class, count, 0, &bytes) {
            let library: &mut BTreeSet<String> = found.entry(self.name(need.vn_file.into())?).or_default();
            for version in versions {
                let name = self.name(version.vna_name.into())?;
                if version.vna_flags & abi::VER_FLG_WEAK == 0 {
                    library.insert(name);
                }
            }
        }
        found.retain(|_, versions| !versions.is_empty());
        Ok(found)
    }

    fn defines(&mut self, (address, count): (Option<u64>, u64)) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let Some(address) = address else { return Ok(found) };
        let bytes = self.versions(address)?;
        let (endian, class) = (self.header.endianness, self.header.class);
        for (definition, mut names) in VerDefIterator::new(endian, class, count, 0, &bytes) {
            // The first name is that of the version, further ones are those that it stands on.
            let Some(name) = names.next() else { continue };
            if definition.vd_flags & abi::VER_FLG_BASE == 0 {
                found.insert(self.name(name.vda_name.into())?);
            }
        }
        Ok(found)
    }

    /// A list of versions: how long it is, its entries say.
    fn versions(&self, address: u64) -> Result<Vec<u8>> {
        let (offset, rest) = self.place(address).ok_or(Problem::Unfit)?;
        self.file.table(offset, rest.min(LARGEST_TABLE))
    }

    /// Where in the file an address of the loaded program lies, and how many bytes of its segment follow.
    fn place(&self, address: u64) -> Option<(u64, u64)> {
        let loaded = self.segments.iter().filter(|segment| segment.p_type == abi::PT_LOAD);
        loaded.into_iter().find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr).filter(|within| *within < segment.p_filesz)?;
            Some((segment.p_offset.checked_add(within)?, segment.p_filesz - within))
        })
    }

    /// A name of the string table.
    fn name(&mut self, offset: u64) -> Result<String> {
        self.names += 1;
        if self.names > MOST_NAMES {
            return Err(Problem::Unfit);
        }
        self.text(self.strings.checked_add(offset).ok_or(Problem::Unfit)?)
    }

    /// The text at a place, up to its zero byte.
    fn text(&mut self, offset: u64) -> Result<String> {
        // Nearly every name fits into the first piece.
        let mut buffer = [0; LONGEST_NAME];
        let mut length = 0;
        for piece in [128, LONGEST_NAME] {
            let from = offset.checked_add(length as u64).ok_or(Problem::Unfit)?;
            let read = self.file.fill(from, &mut buffer[length..piece])?;
            let zero = buffer[length..length + read].iter().position(|byte| *byte == 0);
            length += zero.unwrap_or(read);
            if zero.is_some() {
                self.text = self.text.checked_sub(length as u64).ok_or(Problem::Unfit)?;
                return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
        Err(Problem::Unfit)
    }
}

/// A file, as far as it goes.
struct Bounded<'f, R: ?Sized> {
    file: &'f R,
    size: u64,
}

impl<R: ReadAt + ?Sized> Bounded<'_, R> {
    /// A whole table, within bounds.
    fn table(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length as u64 <= LARGEST_TABLE);
        let mut bytes = vec![0; length.ok_or(Problem::Unfit)?];
        if self.fill(offset, &mut bytes)? < bytes.len() {
            return Err(Problem::Unfit);
        }
        Ok(bytes)
    }

    /// Fills the buffer from a place on, as far as the file goes.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(rest);
        let mut filled = 0;
        while filled < wanted {
            match self.file.read_at(offset + filled as u64, &mut buffer[filled..wanted]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Io(error)),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that this test itself is loaded from.
    fn loaded(name: &str) -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path =
            maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains(name));
        std::fs::read(path.unwrap_or("/proc/self/exe")).unwrap()
    }

    fn read_all(bytes: &[u8]) -> Option<Elf> {
        read(bytes, bytes.len() as u64).unwrap()
    }

    #[test]
    fn program_and_library_of_this_test_are_told() {
        let program = read_all(&loaded("no such name")).unwrap();
        assert!(program.interpreter.as_deref().unwrap().contains("ld-linux"), "{program:?}");
        assert!(program.needed.iter().any(|name| name == "libc.so.6"), "{program:?}");
        let wanted = &program.versions["libc.so.6"];
        let libc = read_all(&loaded("libc.so")).unwrap();
        assert!(libc.exports.is_superset(wanted) && libc.exports.contains("GLIBC_2.17"), "{wanted:?}");
        assert!(!libc.exports.contains("libc.so.6"), "its own name is no version");
        let text = serde_json::to_string(&libc).unwrap();
        assert_eq!(serde_json::from_str::<Elf>(&text).unwrap(), libc);
    }

    #[test]
    fn names_that_a_library_defines_for_others_are_told() {
        let library = loaded("libc.so");
        let libc = offered(library.as_slice(), library.len() as u64).unwrap().unwrap();
        assert_eq!(libc.soname.as_deref(), Some("libc.so.6"));
        for name in ["printf", "malloc", "environ"] {
            assert!(libc.symbols.contains(name), "{name}");
        }
        // By GNU's table alone, as linkers write it by default.
        let library = loaded("libgcc_s");
        let gcc = offered(library.as_slice(), library.len() as u64).unwrap().unwrap();
        assert!(gcc.symbols.contains("_Unwind_Resume") && gcc.symbols.len() > 50, "{gcc:?}");
        assert!(!gcc.symbols.contains("malloc"), "it only asks for that");
    }

    #[test]
    fn damaged_file_is_no_program_and_costs_nothing() {
        let whole = loaded("libc.so");
        for length in (0..4096.min(whole.len())).chain([whole.len() / 2, whole.len() - whole.len() / 4]) {
            // Whatever comes of it: an answer.
            let _ = read_all(&whole[..length]);
            let _ = offered(&whole[..length], length as u64);
        }
        assert_eq!(read_all(&whole[..63]), None);
        let mut noise = whole[..whole.len().min(1 << 20)].to_vec();
        let mut state = 7_u32;
        for _ in 0..2000 {
            for _ in 0..8 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % 1024;
                noise[at] = (state & 0xff) as u8;
            }
            noise[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let _ = read_all(&noise);
            let _ = offered(noise.as_slice(), noise.len() as u64);
        }
    }
}
