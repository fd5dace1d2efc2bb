//! What a stand-in is told to do wrong: by a file, by the environment, or by the version it was packed as.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use tarsup::tars::Service;

/// The last bytes of a packed stand-in, after the length of the note.
pub const MAGIC: &[u8; 8] = b"STANDIN1";
/// The version that a stand-in which was never packed says.
const UNPACKED: &str = "0.0.0";

/// How a stand-in misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// `slow=SECONDS`: opens its ports only then.
    Slow(Duration),
    /// `never-answer`: listens, accepts, and says nothing.
    NeverAnswer,
    /// `never-register`: tarsnode answers, and no registry hears of it.
    NeverRegister,
    /// `crash-after=SECONDS`: dies with exit code 134 then.
    CrashAfter(Duration),
    /// `exit=CODE`: ends at once.
    Exit(u8),
    /// `slow-stop=SECONDS`: takes that long to stop.
    SlowStop(Duration),
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.trim().split_once('=').unwrap_or((text.trim(), ""));
        let seconds =
            || value.parse().map(Duration::from_secs_f64).map_err(|_| format!("`{value}` is no number"));
        Ok(match kind {
            "" | "none" => Self::None,
            "slow" => Self::Slow(seconds()?),
            "never-answer" => Self::NeverAnswer,
            "never-register" => Self::NeverRegister,
            "crash-after" => Self::CrashAfter(seconds()?),
            "exit" => Self::Exit(value.parse().map_err(|_| format!("`{value}` is no exit code"))?),
            "slow-stop" => Self::SlowStop(seconds()?),
            _ => {
                return Err(format!(
                    "`{kind}` is no fault (slow=S, never-answer, never-register, crash-after=S, exit=CODE, slow-stop=S)"
                ));
            }
        })
    }
}

/// The note that the packer appends to the program: the version that it plays, and what it does wrong.
pub struct Note {
    /// The framework's version.
    pub version: String,
    /// The fault that this version was packed with.
    pub fault: Fault,
}

impl Note {
    /// The note as lines of text, in the order in which [`Note::parse`] reads them.
    pub fn text(service: Service, version: &str, fault: &str) -> String {
        format!("service={service}\nversion={version}\nfault={fault}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Some(Self { version: value("version")?.to_owned(), fault: value("fault")?.parse().ok()? })
    }

    /// The note at the end of this very program.
    pub fn own() -> Self {
        Self::read_own().unwrap_or_else(|| Self { version: UNPACKED.to_owned(), fault: Fault::None })
    }

    fn read_own() -> Option<Self> {
        let mut file = std::fs::File::open("/proc/self/exe").ok()?;
        let mut tail = [0; 12];
        let end = file.seek(SeekFrom::End(-12)).ok()?;
        file.read_exact(&mut tail).ok()?;
        if &tail[4..] != MAGIC {
            return None;
        }
        let length = u64::from(u32::from_le_bytes(tail[..4].try_into().ok()?));
        file.seek(SeekFrom::Start(end.checked_sub(length)?)).ok()?;
        let mut text = vec![0; usize::try_from(length).ok()?];
        file.read_exact(&mut text).ok()?;
        Self::parse(&String::from_utf8(text).ok()?)
    }
}

/// The fault in force: the file `$STANDIN_DIR/<service>` (default `/data/tars/standin`), else the variable
/// `STANDIN_<SERVICE>`, else what the version was packed with.
pub fn of(service: Service, note: &Note) -> Fault {
    let folder = std::env::var("STANDIN_DIR").unwrap_or_else(|_| "/data/tars/standin".to_owned());
    let told = std::fs::read_to_string(format!("{folder}/{service}"))
        .or_else(|_| std::env::var(format!("STANDIN_{}", service.name().to_uppercase())));
    match told.map(|text| text.parse()) {
        Ok(Ok(fault)) => fault,
        Ok(Err(why)) => {
            eprintln!("standin: {why}");
            Fault::None
        }
        Err(_) => note.fault,
    }
}
