//! `--metrics-socket`: a Unix socket that answers HTTP/1.0, for curl and Prometheus behind a proxy.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::FileTypeExt,
        net::{SocketAddr, UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::exposition::CONTENT_TYPE;
use crate::{failure::Failure, secret_text};

/// Maximum number of clients that are answered at a time; others wait.
const CLIENTS_MAX: u16 = 8;

/// Time for which a client may take from its connection to its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Pause after a failure to accept, as when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds a non-blocking socket that its owner alone may connect to. A mode that is set once there
/// is a file would come too late for who connects at once: bind takes that of the socket itself.
fn bind_for_owner(path: &Path) -> io::Result<StdUnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, CLIENTS_MAX.into())?;
    Ok(StdUnixListener::from(socket))
}

/// Socket at a path, which is removed on drop.
pub(crate) struct MetricsSocket {
    listener: StdUnixListener,
    path: PathBuf,
}

impl MetricsSocket {
    /// Binds the socket, for its owner alone, before anything is connected. The socket of a process
    /// that was killed is replaced.
    ///
    /// # Errors
    ///
    /// Also if the path is too long, or there is something else, or a process listens there.
    pub(crate) fn bind(path: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("--metrics-socket: {}: {error}", secret_text::shown_path(path)))
        };
        let path = std::path::absolute(path).map_err(|error| failed(&error))?;
        if SocketAddr::from_pathname(&path).is_err() {
            return Err(failed(&"the path of a socket has at most 107 bytes: give a shorter one"));
        }
        match remove_unused(&path) {
            Ok(true) => {}
            Ok(false) => return Err(failed(&"a process listens there: give another path")),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(failed(&"exists and is no socket: give another path"));
            }
            Err(error) => return Err(failed(&error)),
        }
        let listener = bind_for_owner(&path).map_err(|error| failed(&error))?;
        Ok(Self { listener, path })
    }

    /// Answers clients with what `render` returns. Must be called in a runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// When the runtime does not take the socket.
    pub(crate) async fn serve<F: Future<Output = String> + Send>(
        &self,
        render: impl Fn() -> F + Clone + Send + 'static,
    ) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX.into()));
        loop {
            let permit = Arc::clone(&clients).acquire_owned().await.expect("it is never closed");
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let render = render.clone();
            tokio::spawn(async move {
                // A client that is late, or has gone, gets no answer.
                let _ = tokio::time::timeout(CLIENT_TIMEOUT, answer(stream, render)).await;
                drop(permit);
            });
        }
    }
}

impl Drop for MetricsSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a socket on which no process listens. Returns false if one does.
fn remove_unused(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        metadata if !metadata.as_ref().is_ok_and(|one| one.file_type().is_socket()) => {
            return metadata.and(Err(ErrorKind::AlreadyExists.into()));
        }
        _ => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map(|()| true)
        }
        connected => connected.map(|_| false),
    }
}

/// Answers one request.
async fn answer<F: Future<Output = String>>(
    stream: UnixStream,
    render: impl Fn() -> F,
) -> io::Result<()> {
    let head = read_head(&stream).await?;
    let mut words = head.split(|byte| byte.is_ascii_whitespace());
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        (b"GET" | b"HEAD", b"/" | b"/metrics") => ("200 OK", CONTENT_TYPE, render().await),
        (b"GET" | b"HEAD", _) => ("404 Not Found", "text/plain", "see /metrics\n".to_owned()),
        (b"", _) => ("400 Bad Request", "text/plain", "no HTTP\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "GET or HEAD\n".to_owned()),
    };
    let length = body.len();
    let mut response = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nAllow: GET, \
         HEAD\r\nConnection: close\r\n\r\n"
    );
    if method != b"HEAD" {
        response.push_str(&body);
    }
    write_all(&stream, response.as_bytes()).await
}

/// Reads the head of a request: up to an empty line, the end, or the maximum.
async fn read_head(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES_MAX];
    let mut length = 0;
    while length < head.len() {
        stream.readable().await?;
        match stream.try_read(&mut head[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let read = &head[..length];
        let is_over = |end: &[u8]| read.windows(end.len()).any(|bytes| bytes == end);
        if is_over(b"\r\n\r\n") || is_over(b"\n\n") {
            break;
        }
    }
    head.truncate(length);
    Ok(head)
}

async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    fn refusal(path: &Path) -> String {
        let failure = MetricsSocket::bind(path).err().expect("it is refused").to_string();
        assert_eq!(failure.lines().count(), 1, "{failure}");
        failure
    }

    #[test]
    fn a_path_that_is_not_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("file"), folder.path().join("socket"));
        fs::write(&file, "something else").unwrap();
        assert!(refusal(&file).contains("no socket"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
        assert!(refusal(&folder.path().join("none/socket")).contains("No such file"));
        assert!(refusal(&folder.path().join("x".repeat(120))).contains("107 bytes"));
        let first = MetricsSocket::bind(&socket).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(refusal(&socket).contains("a process listens"));
        drop(first);
        assert!(!socket.exists());
        // What a process leaves that was killed.
        drop(StdUnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        drop(MetricsSocket::bind(&socket).unwrap());
    }

    fn ask(path: &Path, request: &[u8]) -> String {
        let mut stream = StdUnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_get_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = MetricsSocket::bind(&path).unwrap();
        let server = tokio::spawn(async move { socket.serve(async || "# EOF\n".to_owned()).await });
        let answers = tokio::task::spawn_blocking(move || {
            // As many clients as are answered at a time say nothing: they are given up.
            let silent: Vec<_> =
                (0..CLIENTS_MAX).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
            let late = ask(&path, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
            drop(silent);
            let more = ["HEAD / HTTP/1.0", "GET /x HTTP/1.0", "PUT / HTTP/1.0", ""]
                .map(|line| ask(&path, format!("{line}\r\n\r\n").as_bytes()));
            (late, more)
        });
        let (late, [head, unknown, put, nothing]) = answers.await.unwrap();
        assert!(late.starts_with("HTTP/1.0 200 OK\r\n"), "{late}");
        assert!(late.contains(CONTENT_TYPE) && late.ends_with("\r\n\r\n# EOF\n"), "{late}");
        assert!(head.contains("Content-Length: 6") && head.ends_with("\r\n\r\n"), "{head}");
        for (answer, status) in [(unknown, "404"), (put, "405"), (nothing, "400")] {
            assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{answer}");
        }
        server.abort();
    }
}
