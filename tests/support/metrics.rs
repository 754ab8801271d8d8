//! Metrics of `nvmf attach` and `nvmf monitor`, as their readers see them.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Text of metrics.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// Asks a process on its socket.
    ///
    /// # Panics
    ///
    /// When it does not answer as HTTP/1.0 says, with OpenMetrics text.
    #[must_use]
    pub fn ask(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("text");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(head.contains(&length) && body.ends_with("# EOF\n"), "{head}\n\n{body}");
        Self(body.to_owned())
    }

    /// Sum of the samples of this name that have all of these labels (`name="value"`).
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let values: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "))
            .filter(|(found, _)| labels.iter().all(|label| found.contains(label)))
            .map(|(_, value)| value.parse().expect("a number"))
            .collect();
        assert!(!values.is_empty(), "no {name} {labels:?}: {}", self.0);
        values.iter().sum()
    }
}
