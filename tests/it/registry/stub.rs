//! A registry of the tests' own: it does what the specification says, but for what a test tells it to do instead.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tarsup::oci::Digest;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    /// True for this method, and a path with this in it.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
    }
}

/// What is done instead of what should be.
pub enum Act {
    /// This status, with these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// So much of the request's body is taken, then the connection ends.
    TakeThenEnd(usize),
    /// As it should, but the answer's body ends after so many bytes, and the connection with it.
    CutAnswer(usize),
    /// A body without an end.
    Endless,
    /// Nothing is ever said.
    Silent,
    /// This, whatever it is, and then the connection ends.
    Odd(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

/// The state, as a test may look at it.
#[derive(Default)]
pub struct Kept {
    pub blobs: BTreeMap<(String, String), Vec<u8>>,
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    pub asked: Vec<Asked>,
    /// Bytes of bodies that came.
    pub taken: usize,
    /// Bytes of bodies that went out, where it did what it should.
    pub given: usize,
    /// Whoever asks for a blob of another repository is to send it.
    pub mounts_nothing: bool,
    uploads: BTreeMap<String, (String, Vec<u8>)>,
    count: usize,
}

type Mischief = Arc<dyn Fn(&Asked, &mut Kept) -> Option<Act> + Send + Sync>;

/// A registry that runs until the test ends.
pub struct Stub {
    pub port: u16,
    pub kept: Arc<Mutex<Kept>>,
}

impl Stub {
    /// One that does what it should.
    pub fn honest() -> Self {
        Self::that(|_, _| None)
    }

    /// One that does this instead, where it is something.
    pub fn that(mischief: impl Fn(&Asked, &mut Kept) -> Option<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self { port: listener.local_addr().unwrap().port(), kept: Arc::default() };
        let (kept, mischief): (_, Mischief) = (stub.kept.clone(), Arc::new(mischief));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, mischief) = (kept.clone(), mischief.clone());
                std::thread::spawn(move || while serve(&stream, &kept, &mischief).is_some() {});
            }
        });
        stub
    }

    /// `docker://127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }

    /// What of this was asked.
    pub fn asked(&self, method: &str, part: &str) -> Vec<Asked> {
        self.kept.lock().unwrap().asked.iter().filter(|asked| asked.is(method, part)).cloned().collect()
    }

    /// How often this was asked.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.asked(method, part).len()
    }
}

fn read_head(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    // Whoever tries TLS first sends what is no text.
    reader.by_ref().take(16 * 1024).read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut asked =
        Asked { method, path: path.to_owned(), query: query.to_owned(), headers: BTreeMap::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => asked.headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => return Some(asked),
        };
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Kept>, mischief: &Mischief) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let asked = read_head(&mut reader)?;
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let act = {
        let mut kept = kept.lock().unwrap();
        kept.asked.push(asked.clone());
        mischief(&asked, &mut kept)
    };
    let act = match act {
        Some(Act::Odd(say)) => {
            // To its end: who sends would not hear the answer otherwise.
            let mut rest = vec![0; length];
            reader.read_exact(&mut rest).ok()?;
            say(&mut stream.try_clone().ok()?);
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
        act => act,
    };
    let most = if let Some(Act::TakeThenEnd(most)) = act { length.min(most) } else { length };
    let mut body = vec![0; most];
    reader.read_exact(&mut body).ok()?;
    kept.lock().unwrap().taken += body.len();
    let (status, headers, answer) = match act {
        Some(Act::Answer(status, headers, answer)) => (status, headers, answer),
        Some(Act::TakeThenEnd(_)) => {
            let mut kept = kept.lock().unwrap();
            let _ = usual(&asked, body, &mut kept);
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
        Some(Act::Silent) => loop {
            std::thread::park();
        },
        Some(Act::Endless) => {
            let mut out = stream;
            write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            let piece = vec![b'x'; 0x1_0000];
            loop {
                write!(out, "10000\r\n").ok()?;
                out.write_all(&piece).ok()?;
                write!(out, "\r\n").ok()?;
            }
        }
        Some(Act::CutAnswer(most)) => {
            let (status, headers, answer) = usual(&asked, body, &mut kept.lock().unwrap());
            write_head(stream, status, &headers, answer.len())?;
            (&mut &*stream).write_all(&answer[..most.min(answer.len())]).ok()?;
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
        None | Some(Act::Odd(_)) => usual(&asked, body, &mut kept.lock().unwrap()),
    };
    write_head(stream, status, &headers, answer.len())?;
    if asked.method != "HEAD" {
        kept.lock().unwrap().given += answer.len();
        (&mut &*stream).write_all(&answer).ok()?;
    }
    Some(())
}

fn write_head(mut stream: &TcpStream, status: u16, headers: &[(&str, String)], length: usize) -> Option<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        head += &[name, ": ", value, "\r\n"].concat();
    }
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &["Content-Length: ", &length.to_string(), "\r\n"].concat();
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// What the specification says.
fn usual(asked: &Asked, body: Vec<u8>, kept: &mut Kept) -> Answer {
    let plain = |status| (status, Vec::new(), Vec::new());
    let Some(rest) = asked.path.strip_prefix("/v2/") else { return plain(404) };
    if rest.is_empty() {
        return plain(200);
    }
    if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
        return upload(asked, repository, id, body, kept);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        let key = (repository.to_owned(), digest.to_owned());
        let Some(blob) = kept.blobs.get(&key) else { return plain(404) };
        return match asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')) {
            Some(from) => {
                let from: usize = from.parse().unwrap();
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                (206, vec![("Content-Range", range)], blob[from..].to_vec())
            }
            None => (200, Vec::new(), blob.clone()),
        };
    }
    let Some((repository, tag)) = rest.split_once("/manifests/") else { return plain(404) };
    let key = (repository.to_owned(), tag.to_owned());
    if asked.method == "PUT" {
        let digest = Digest::of(&body).to_string();
        let media_type = asked.header("content-type").unwrap_or_default().to_owned();
        kept.manifests.insert((repository.to_owned(), digest.clone()), (media_type.clone(), body.clone()));
        kept.manifests.insert(key, (media_type, body));
        return (201, vec![("Docker-Content-Digest", digest)], Vec::new());
    }
    match kept.manifests.get(&key) {
        Some((media_type, bytes)) => {
            let digest = Digest::of(bytes).to_string();
            (
                200,
                vec![("Content-Type", media_type.clone()), ("Docker-Content-Digest", digest)],
                bytes.clone(),
            )
        }
        None => plain(404),
    }
}

/// The place of an upload is another one after each request, and no older one is known.
fn upload(asked: &Asked, repository: &str, id: &str, body: Vec<u8>, kept: &mut Kept) -> Answer {
    let plain = |status| (status, Vec::new(), Vec::new());
    kept.count += 1;
    let next = format!("{}/{}", id.split('/').next().unwrap_or_default(), kept.count);
    let place = |next: &str| ("Location", format!("/v2/{repository}/blobs/uploads/{next}?_state=a%2Fb%3D"));
    if asked.method == "POST" {
        if let (Some(digest), Some(from)) = (asked.parameter("mount"), asked.parameter("from"))
            && !kept.mounts_nothing
            && let Some(blob) = kept.blobs.get(&(from, digest.clone())).cloned()
        {
            kept.blobs.insert((repository.to_owned(), digest), blob);
            return plain(201);
        }
        let next = format!("u{}/0", kept.count);
        kept.uploads.insert(next.clone(), (repository.to_owned(), Vec::new()));
        return (202, vec![place(&next)], Vec::new());
    }
    let known = kept.uploads.remove(id).filter(|_| asked.query.contains("_state=a%2Fb%3D"));
    let Some((owner, mut bytes)) = known.filter(|(owner, _)| owner == repository) else { return plain(404) };
    match asked.method.as_str() {
        "PATCH" => {
            let from = asked.header("content-range").and_then(|range| range.split('-').next()?.parse().ok());
            if from != Some(bytes.len()) {
                kept.uploads.insert(next.clone(), (owner, bytes));
                return (416, vec![place(&next)], Vec::new());
            }
            bytes.extend(body);
            let range = format!("0-{}", bytes.len().saturating_sub(1));
            // Whoever lost the answer asks at the place that it knows.
            kept.uploads.insert(id.to_owned(), (owner.clone(), bytes.clone()));
            kept.uploads.insert(next.clone(), (owner, bytes));
            (202, vec![place(&next), ("Range", range)], Vec::new())
        }
        "GET" => {
            let range = format!("0-{}", bytes.len().saturating_sub(1));
            kept.uploads.insert(next.clone(), (owner, bytes));
            (204, vec![place(&next), ("Range", range)], Vec::new())
        }
        _ => {
            bytes.extend(body);
            let digest = Digest::of(&bytes).to_string();
            if asked.parameter("digest").as_ref() != Some(&digest) {
                return plain(400);
            }
            kept.blobs.insert((owner, digest.clone()), bytes);
            (201, vec![("Docker-Content-Digest", digest)], Vec::new())
        }
    }
}
