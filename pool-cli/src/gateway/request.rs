//! Incoming requests: the head, read strictly, and the body, read within limits.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, Uri, header};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::{Code, Problem};

/// Maximum length of a head; no client of ours sends longer ones.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Maximum number of headers: more than any client of ours sends, and as many as hyper accepts.
const MAX_HEADERS: usize = 100;

/// Time for which further data from a client is read and discarded after the last answer.
const LINGER: Duration = Duration::from_millis(500);

/// Maximum number of such bytes.
const MAX_LINGER: usize = 8 * 1024 * 1024;

/// The method of the request that hyper gets instead of one that is refused.
const REFUSED: &str = "REFUSED";

/// A client's connection, whose request heads are read strictly before hyper reads them.
///
/// hyper accepts lines that end in a bare LF, requests without `Host` and bodies with two lengths,
/// which a proxy in front may have read differently, and answers what it cannot read with an empty
/// 400. Here the first three are refused, and each refusal is an answer with a sentence. Two
/// deviations that Chromium accepts from clients are corrected: a method in lower case, and a
/// target that begins with its query.
///
/// Anything that a client sends after the last answer is read for a moment and discarded: closing a
/// socket with unread data resets the connection, and the answer may be lost with it.
pub(super) struct Heads {
    stream: TcpStream,
    /// Bytes read from the socket that have not been examined, or are not needed, yet.
    unread: Vec<u8>,
    /// Number of bytes of `unread` that have been searched for the end of a head.
    scanned: usize,
    /// A head that has passed the checks, on its way to hyper.
    head: io::Cursor<Vec<u8>>,
    next: Next,
    refusal: Refusal,
    linger: Option<Linger>,
}

/// The reason why a connection's last request is refused, if it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal(Arc<OnceLock<Problem>>);

/// What comes next on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Head,
    /// This many bytes of a body, and then a head.
    Body(u64),
    /// Whatever it is, no further request is read from it.
    Rest,
    /// Nothing that anybody reads.
    Nothing,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    dropped: usize,
}

impl Refusal {
    /// Returns the problem of a request that stands in for a refused one.
    pub(super) fn of(&self, method: &Method) -> Option<Problem> {
        if method.as_str() == REFUSED { self.0.get().cloned() } else { None }
    }
}

/// Returns `true` if a request is the last one of its connection, unless it is answered with 101:
/// after an upgrade or a body of unknown length, nobody looks for a head.
pub(super) fn is_last(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::CONNECT
        || headers.contains_key(header::UPGRADE)
        || headers.contains_key(header::TRANSFER_ENCODING)
}

impl Heads {
    /// Wraps a connection from which nothing has been read.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            scanned: 0,
            head: io::Cursor::default(),
            next: Next::Head,
            refusal: Refusal::default(),
            linger: None,
        }
    }

    /// Returns where the refusal of a later request will be found.
    pub(super) fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }

    /// Returns the socket, and the bytes that have already been read from it.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.unread)
    }

    /// Reads more into `unread`; 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [0; 4096];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.unread.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Looks for a head in the bytes that were read, and checks it.
    fn take_head(&mut self) -> bool {
        let judged = match find(&self.unread, &mut self.scanned) {
            Ok(None) => return false,
            Ok(Some(end)) => judge(&self.unread[..end]).map(|(head, next)| (head, next, end)),
            Err(problem) => Err(problem),
        };
        self.scanned = 0;
        match judged {
            Ok((head, next, end)) => {
                self.unread.drain(..end);
                self.head = io::Cursor::new(head);
                self.next = next;
            }
            Err(problem) => {
                // There is only one refusal for each connection, since it ends the connection.
                let _ = self.refusal.0.set(problem);
                self.unread = Vec::new();
                let stand_in = format!("{REFUSED} / HTTP/1.1\r\nconnection: close\r\n\r\n");
                self.head = io::Cursor::new(stand_in.into_bytes());
                self.next = Next::Nothing;
            }
        }
        true
    }

    /// Passes on what comes after a head: up to `most` bytes, starting with those already read.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let most = most.min(buffer.remaining());
        if !self.unread.is_empty() {
            let given = most.min(self.unread.len());
            buffer.put_slice(&self.unread[..given]);
            self.unread.drain(..given);
            return Poll::Ready(Ok(given));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let given = part.filled().len();
        buffer.advance(given);
        Poll::Ready(Ok(given))
    }
}

impl AsyncRead for Heads {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let left = &this.head.get_ref()[this.head.position() as usize..];
            if !left.is_empty() {
                let given = left.len().min(buffer.remaining());
                buffer.put_slice(&left[..given]);
                this.head.set_position(this.head.position() + given as u64);
                return Poll::Ready(Ok(()));
            }
            match this.next {
                Next::Head => {
                    // An incomplete head at the end of the stream deserves no answer.
                    if !this.take_head() && ready!(this.poll_fill(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Next::Body(left) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let given = ready!(this.poll_rest(cx, buffer, most))? as u64;
                    this.next = if given == left { Next::Head } else { Next::Body(left - given) };
                    return Poll::Ready(Ok(()));
                }
                Next::Rest => {
                    return this.poll_rest(cx, buffer, usize::MAX).map_ok(drop);
                }
                // Not the end of the stream, at which hyper would drop the answer.
                Next::Nothing => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for Heads {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this
            .linger
            .get_or_insert_with(|| Linger { until: Box::pin(sleep(LINGER)), dropped: 0 });
        let mut chunk = [0; 8192];
        while linger.dropped < MAX_LINGER && linger.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut chunk);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => linger.dropped += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Maximum number of empty lines that are skipped before a request: some clients send one after a
/// body. More of them count as a head without a request.
const MAX_BLANK: usize = 8;

/// Finds the end of the head that `bytes` begins with.
///
/// # Errors
///
/// As soon as it is certain that no HTTP/1 head will come.
fn find(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, Problem> {
    let blank = bytes.chunks(2).take(MAX_BLANK).take_while(|pair| pair == b"\r\n");
    let begin = blank.count() * 2;
    if let Some(first) = bytes.get(begin)
        && !first.is_ascii_alphabetic()
        && *first != b'\r'
    {
        return Err(malformed("this port expects HTTP/1.1, without TLS"));
    }
    for at in (*scanned).max(begin)..bytes.len() {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        if (bytes[at] == b'\n') != (before == Some(&b'\r')) {
            return Err(malformed("each line of a request must end in CR LF"));
        }
        if at >= MAX_HEAD {
            return Err(too_large());
        }
        if bytes[..=at].ends_with(b"\r\n\r\n") {
            return Ok(Some(at + 1));
        }
    }
    *scanned = bytes.len();
    Ok(None)
}

/// Checks a complete head. Returns it in the form that hyper should get, and what comes after it.
fn judge(head: &[u8]) -> Result<(Vec<u8>, Next), Problem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(malformed("the request has no end")),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(error) => return Err(malformed(&format!("this is not an HTTP/1.1 request: {error}"))),
    }
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let is_11 = request.version == Some(1);
    let all = |name: &header::HeaderName| {
        let name = name.as_str();
        let named = request.headers.iter().filter(move |held| held.name.eq_ignore_ascii_case(name));
        named.map(|held| held.value.trim_ascii()).collect::<Vec<_>>()
    };

    let hosts = all(&header::HOST);
    if hosts.len() > 1 || is_11 && hosts.is_empty() {
        return Err(malformed("a request must have exactly one Host header"));
    }
    let lengths = all(&header::CONTENT_LENGTH);
    let codings = all(&header::TRANSFER_ENCODING);
    let length = match (&*lengths, &*codings) {
        ([], []) => 0,
        ([length], []) => read_length(length)?,
        ([], [coding]) if is_11 && coding.eq_ignore_ascii_case(b"chunked") => 0,
        _ => {
            let detail = "a body must have one Content-Length, or one Transfer-Encoding: chunked";
            return Err(malformed(detail));
        }
    };
    let upgrade = !all(&header::UPGRADE).is_empty();

    // As Chromium accepts them: nodriver sends `get`, and `ws://host:port?x=1` has no path.
    let method_len = method.len();
    let method = known(method).unwrap_or(method);
    let slash = if target.starts_with('?') { "/" } else { "" };
    let target_at = method_len + 1;
    let uri = Uri::try_from(format!("{slash}{target}"))
        .map_err(|error| malformed(&format!("the address of the request is malformed: {error}")))?;
    if let (Some(_), Some(authority)) = (uri.scheme(), uri.authority())
        && !hosts.iter().all(|host| host.eq_ignore_ascii_case(authority.as_str().as_bytes()))
    {
        return Err(malformed(
            "the host in the address of the request differs from its Host header",
        ));
    }

    let begin = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or_default();
    let rest = &head[begin + target_at..];
    let whole = [method.as_bytes(), b" ", slash.as_bytes(), rest].concat();
    let next = match length {
        _ if upgrade || method == "CONNECT" || !codings.is_empty() => Next::Rest,
        0 => Next::Head,
        length => Next::Body(length),
    };
    Ok((whole, next))
}

/// Returns the method that a method in lower case stands for.
fn known(method: &str) -> Option<&'static str> {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    methods.into_iter().find(|known| known.eq_ignore_ascii_case(method))
}

fn read_length(text: &[u8]) -> Result<u64, Problem> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    // hyper reserves the last two numbers for itself.
    length
        .filter(|length| digits && *length < u64::MAX / 2)
        .ok_or_else(|| malformed("Content-Length must be a number of bytes"))
}

fn malformed(detail: &str) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

fn too_large() -> Problem {
    let detail =
        format!("a request may have at most {MAX_HEADERS} headers and {MAX_HEAD} bytes of them");
    Problem::new(Code::HeadTooLarge, detail)
}

/// Maximum length of a body: longer than any that makes sense here.
const LIMIT: usize = 64 * 1024;

/// Maximum time a body may take to arrive.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A JSON body, with refusals as problems; an empty one stands for `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let kept = request.extensions().get::<KeptBody>().cloned();
        let bytes = collect(request.into_body(), LIMIT).await?;
        if let Some(kept) = kept {
            kept.keep(&bytes);
        }
        if bytes.is_empty() {
            return parse(&Bytes::from_static(b"{}"));
        }
        if !declared {
            let detail = "the body must be JSON: Content-Type: application/json";
            return Err(Problem::new(Code::NotJson, detail));
        }
        parse(&bytes)
    }
}

/// The body of a request that may have to be sent again, although it can be read only once.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptBody(Arc<Mutex<Bytes>>);

impl KeptBody {
    pub(super) fn keep(&self, body: &Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = body.clone();
    }

    pub(super) fn get(&self) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn collect(body: HttpBody, limit: usize) -> Result<Bytes, Problem> {
    match timeout(PATIENCE, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let detail = format!("the body is incomplete or longer than {limit} bytes");
            Err(Problem::new(Code::BadBody, detail).too_long())
        }
        Err(_) => {
            let detail = "the body did not arrive in time";
            Err(Problem::new(Code::SlowBody, detail))
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<Body<T>, Problem> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map(Body).map_err(|error| Problem::new(Code::BadBody, error.to_string()))
}

/// Returns `true` if the body is declared to be JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// KiB that the bodies and answers of all calls may take together.
const ROOM: usize = 256 * 1024;

/// Room for bodies and answers, so that hundreds of calls do not use up the memory of the machine.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

impl Room {
    /// Waits for room for this many bytes.
    pub(super) async fn of(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = bytes.div_ceil(1024).clamp(1, ROOM) as u32;
        let permit = Arc::clone(&self.0).acquire_many_owned(units).await;
        permit.expect("the semaphore is never closed")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Returns what hyper would read of what a client sends in these pieces, and what is refused of it.
    async fn read(pieces: &[&[u8]]) -> (String, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.set_nodelay(true).expect("it is a socket");
        let (stream, _) = listener.accept().await.expect("it has come");
        let mut heads = Heads::new(stream);
        let refusal = heads.refusal();
        let mut text = Vec::new();
        let reading = async {
            while !matches!(heads.read_buf(&mut text).await, Ok(0) | Err(_))
                && heads.next != Next::Nothing
            {}
        };
        let writing = async {
            for piece in pieces {
                client.write_all(piece).await.expect("it is read");
                tokio::task::yield_now().await;
            }
            client.shutdown().await.expect("it is open");
        };
        tokio::join!(reading, writing);
        let refused = refusal.of(&REFUSED.parse().expect("a method"));
        let text = String::from_utf8(text).expect("it is text");
        (text, refused.map(|problem| problem.detail().to_owned()))
    }

    #[tokio::test]
    async fn requests_one_after_another_pass_in_any_pieces() {
        let text = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\r\nPOST /b HTTP/1.1\r\nhost: x\r\n\
                    content-length: 4\r\n\r\na\nb\nDELETE /c HTTP/1.1\r\nHost: x\r\n\r\n";
        let passed = text.replace("\r\n\r\n\r\nPOST", "\r\n\r\nPOST");
        for size in [1, 3, 7, 1000] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read(&pieces).await, (passed.clone(), None), "{size}");
        }
    }

    #[tokio::test]
    async fn empty_lines_without_end_are_refused() {
        let blank = "\r\n".repeat(MAX_BLANK + 2);
        let (passed, refused) = read(&[blank.as_bytes()]).await;
        assert!(refused.is_some_and(|why| why.contains("no end")), "{passed:?}");
    }

    #[tokio::test]
    async fn what_clients_spell_otherwise_is_made_right() {
        for (sent, passed) in [
            ("get /json/version HTTP/1.1\r\nHost: x\r\n\r\n", "GET /json/version HTTP/1.1"),
            ("GET ?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?x=1 HTTP/1.1"),
            ("\r\nget ?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?x=1 HTTP/1.1"),
            ("BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", "BREW /pot HTTP/1.1"),
            ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0"),
            ("GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://x/a HTTP/1.1"),
        ] {
            let (text, refused) = read(&[sent.as_bytes()]).await;
            assert_eq!((text.lines().next(), refused), (Some(passed), None), "{sent}");
        }
    }

    #[tokio::test]
    async fn what_could_be_read_in_two_ways_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
        let post = "POST / HTTP/1.1\r\nHost: x\r\n";
        for sent in [
            "GET / HTTP/1.1\nHost: x\n\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: x\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: x\r\na: b\rc: d\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n".to_owned(),
            "GET / HTTP/1.0\r\nHost: x\r\nhost: y\r\n\r\n".to_owned(),
            "GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: x\r\n a: folded\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(),
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET / HTTP/3.1\r\nHost: x\r\n\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "\u{16}\u{3}\u{1}".to_owned(),
            format!("{post}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
            format!("{post}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
            format!("{post}Content-Length: 3, 3\r\n\r\nabc"),
            format!("{post}Content-Length: +3\r\n\r\nabc"),
            format!("{post}Content-Length: 0x3\r\n\r\nabc"),
            format!("{post}Content-Length: \r\n\r\nabc"),
            format!("{post}Content-Length: 18446744073709551615\r\n\r\nabc"),
            format!("{post}Content-Length: 99999999999999999999\r\n\r\nabc"),
            format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n"),
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            long,
            many,
        ] {
            let smuggled = format!("{sent}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
            let (text, refused) = read(&[smuggled.as_bytes()]).await;
            assert!(text.starts_with(REFUSED), "{sent:.90}: {text:.90}");
            assert!(refused.is_some() && !text.contains("smuggled"), "{sent:.90}: {text:.90}");
        }
    }

    #[tokio::test]
    async fn behind_an_upgrade_nothing_is_looked_at() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";
        let (text, refused) = read(&[head.as_bytes(), b"\n\n\x01frames"]).await;
        assert_eq!((text, refused), (format!("{head}\n\n\x01frames"), None));
    }
}
