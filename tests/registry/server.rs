//! A small HTTP server that does what it is told, and a line to another server that breaks on purpose.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// By lower-case names.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where the range begins that is asked for.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    end: End,
}

/// How an answer's body ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Whole,
    /// The connection is closed after so many bytes.
    Cut(usize),
    /// After so many bytes nothing more comes, for as long.
    Stall(usize, Duration),
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), end: End::Whole }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn cut(self, at: usize) -> Self {
        Self { end: End::Cut(at), ..self }
    }

    pub(crate) fn stall(self, at: usize, time: Duration) -> Self {
        Self { end: End::Stall(at, time), ..self }
    }

    /// The part of a blob that a request asks for.
    pub(crate) fn part(asked: &Asked, blob: &[u8]) -> Self {
        match asked.from() {
            None => Self::new(200, blob),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                Self::new(206, &blob[from..]).header("Content-Range", range)
            }
        }
    }
}

/// A server. It ends with its value.
pub(crate) struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let kept = Arc::clone(&log);
        let (address, stop) = listen(move |stream| {
            let Some(asked) = read_request(&stream) else { return };
            let reply = answer(&asked);
            kept.lock().unwrap().push(asked.clone());
            // The client may have gone.
            write_reply(&stream, &reply, asked.method == "HEAD").ok();
        });
        Self { address, log, stop }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// All requests so far whose path has this in it.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&self.stop, self.address);
    }
}

/// Serves each connection in a thread of its own.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    (address, stop)
}

fn end(stop: &AtomicBool, address: SocketAddr) {
    stop.store(true, Ordering::SeqCst);
    // Wakes it up to see that.
    TcpStream::connect(address).ok();
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut asked = Asked { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Asked::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if asked.header("expect").is_some() {
        (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut asked.body).ok()?;
    Some(asked)
}

fn write_reply(mut stream: &TcpStream, reply: &Reply, head: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        text += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all((text + "\r\n").as_bytes())?;
    let body: &[u8] = if head { &[] } else { &reply.body };
    match reply.end {
        End::Whole => stream.write_all(body)?,
        End::Cut(at) => stream.write_all(&body[..at])?,
        End::Stall(at, time) => {
            stream.write_all(&body[..at])?;
            thread::sleep(time);
        }
    }
    stream.shutdown(Shutdown::Write)
}

/// A line to another server that lets so many bytes pass, and then holds them back or breaks.
pub(crate) struct Line {
    address: SocketAddr,
    state: Arc<LineState>,
    stop: Arc<AtomicBool>,
}

struct LineState {
    /// Bytes of answers that may still pass.
    down: AtomicU64,
    /// Bytes of requests that may still pass.
    up: AtomicU64,
    /// Whether it breaks where nothing more may pass; otherwise nothing more comes.
    breaks: AtomicBool,
}

/// More than any test sends.
pub(crate) const UNLIMITED: u64 = 1 << 50;

impl Line {
    pub(crate) fn start(to: &str, down: u64, up: u64, breaks: bool) -> Self {
        let to = to.to_owned();
        let state = Arc::new(LineState { down: down.into(), up: up.into(), breaks: breaks.into() });
        let shared = Arc::clone(&state);
        let (address, stop) = listen(move |client| {
            let Ok(server) = TcpStream::connect(&to) else { return };
            let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { return };
            let state = Arc::clone(&shared);
            thread::spawn(move || pass(&client2, &server2, &state.up, &state.breaks));
            pass(&server, &client, &shared.down, &shared.breaks);
        });
        Self { address, state, stop }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Lets everything pass from now on.
    pub(crate) fn mend(&self) {
        self.state.down.store(UNLIMITED, Ordering::SeqCst);
        self.state.up.store(UNLIMITED, Ordering::SeqCst);
    }

    /// Bytes of requests that have passed since it was mended.
    pub(crate) fn passed_up(&self) -> u64 {
        UNLIMITED - self.state.up.load(Ordering::SeqCst)
    }

    /// Breaks what it holds back, and what comes: what is on its way is lost, as where a machine dies.
    pub(crate) fn sever(&self) {
        self.state.breaks.store(true, Ordering::SeqCst);
    }

    /// Whether it has let pass all that it was to.
    pub(crate) fn is_used_up(&self) -> bool {
        self.state.down.load(Ordering::SeqCst) == 0 || self.state.up.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.mend();
        end(&self.stop, self.address);
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, left: &AtomicU64, breaks: &AtomicBool) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let mut done = 0;
        while done < count {
            let may = left.load(Ordering::SeqCst).min((count - done) as u64);
            if may == 0 {
                if breaks.load(Ordering::SeqCst) {
                    from.shutdown(Shutdown::Both).ok();
                    to.shutdown(Shutdown::Both).ok();
                    return;
                }
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            left.fetch_sub(may, Ordering::SeqCst);
            let may = usize::try_from(may).unwrap();
            if to.write_all(&buffer[done..done + may]).is_err() {
                from.shutdown(Shutdown::Both).ok();
                return;
            }
            done += may;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
