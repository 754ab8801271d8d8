//! apt, called with the machine's own state or with one of ours in the cache.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Error, Result, helper, kernel::cache::Cache, progress::say};

/// Names a Debian mirror for machines whose apt uses none, as Ubuntu's.
pub(super) const MIRROR_VARIABLE: &str = "SOFT_ROCE_DEBIAN_MIRROR";

/// Longest wait for a lock of apt or dpkg: an unattended upgrade may hold it for minutes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Time between two attempts to get the lock.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Options that every call of apt gets; they say whose package lists it uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// apt as the machine is set up, with its package lists as they are.
    pub(super) fn host() -> Self {
        Self::default()
    }

    /// The machine's package sources with package lists of our own, which need no root.
    pub(super) fn own_lists(cache: &Cache) -> Result<Self> {
        Ok(Self { options: state(&state_folder(cache, "machine")?) })
    }

    /// One suite of one mirror, of the machine's architecture or another; the machine's
    /// configuration stays as it is.
    pub(super) fn suite(
        cache: &Cache,
        mirror: &str,
        suite: &str,
        architecture: Option<&str>,
    ) -> Result<Self> {
        if mirror.contains(char::is_whitespace) || !mirror.contains("://") {
            let usage =
                format!("{MIRROR_VARIABLE}: {mirror:?} is no mirror, like http://HOST/debian");
            return Err(Error::Usage(usage));
        }
        let name = [Some(suite), architecture].into_iter().flatten().collect::<Vec<_>>().join("-");
        let folder = state_folder(cache, &name)?;
        let list = folder.join("sources.list");
        let line = format!("deb {}{mirror} {suite} main\n", signed_by());
        fs::write(&list, line).map_err(Error::io("write", &list))?;
        let mut options = state(&folder);
        options.push(format!("-oDir::Etc::sourcelist={}", list.display()));
        options.push("-oDir::Etc::sourceparts=/dev/null".into());
        if let Some(name) = architecture {
            options.push(format!("-oAPT::Architecture={name}"));
            options.push(format!("-oAPT::Architectures={name}"));
        }
        Ok(Self { options })
    }

    /// Reads the package lists; one that cannot be read does not keep the others from being read.
    pub(super) fn update(&self) -> Result<()> {
        // A mirror out of reach is otherwise only a warning.
        run(self.command("apt-get").args(["-q", "-oAPT::Update::Error-Mode=any", "update"]))
    }

    pub(super) fn install(&self, packages: &[String]) -> Result<()> {
        let mut install = self.command("apt-get");
        install.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
        run(install.env("DEBIAN_FRONTEND", "noninteractive"))
    }

    /// Downloads packages of exactly that version into `folder` and returns the files.
    pub(super) fn download(
        &self,
        names: &[String],
        version: &str,
        folder: &Path,
    ) -> Result<Vec<PathBuf>> {
        let mut get = self.command("apt-get");
        get.args(["-q", "download"]).args(names.iter().map(|name| format!("{name}={version}")));
        run(get.current_dir(folder)).map_err(|error| Error::Download {
            package: format!("{} {version}", names.join(" ")),
            reason: reason(error),
        })?;
        packages_in(folder)
    }

    /// Downloads packages and all that they depend on, whatever is installed here, into `folder`,
    /// which must be empty or absent; returns the files.
    pub(super) fn download_with_dependencies(
        &self,
        names: &[String],
        folder: &Path,
    ) -> Result<Vec<PathBuf>> {
        let partial = folder.join("partial");
        fs::create_dir_all(&partial).map_err(Error::io("create", partial))?;
        let status = folder.join("status");
        fs::write(&status, "").map_err(Error::io("write", &status))?;
        let mut get = self.command("apt-get");
        get.arg(format!("-oDir::State::status={}", status.display()));
        get.arg(format!("-oDir::Cache::archives={}", folder.display()));
        get.args(["install", "-q", "-y", "--download-only", "--no-install-recommends"]);
        run(get.args(names))?;
        let mut files = packages_in(folder)?;
        files.sort();
        Ok(files)
    }

    /// The packages on offer whose names begin like that.
    pub(super) fn names(&self, start: &str) -> Result<Vec<String>> {
        let mut search = self.command("apt-cache");
        // Unlike `pkgnames`, this leaves out names that are mentioned without being offered.
        search.args(["search", "--names-only", &format!("^{start}")]);
        let found = helper::output(&mut search)?;
        let names = found.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// The record of a package's newest version.
    pub(super) fn record(&self, name: &str) -> Result<String> {
        let mut show = self.command("apt-cache");
        helper::output(show.args(["show", "--no-all-versions", name]))
    }

    /// The origin, label and site of each package list that was read.
    fn targets(&self) -> Option<String> {
        let mut ask = self.command("apt-get");
        ask.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(SITE)"]);
        helper::output(&mut ask).ok()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
    Ok(files.flatten().map(|entry| entry.path()).filter(is_package).collect())
}

/// The Debian mirror that the environment names, or that this machine uses, as its own apt tells.
/// apt tells nothing before it has read a package list; with a cache, ours are read then.
pub(super) fn mirror(cache: Option<&Cache>) -> Option<String> {
    let named = env::var(MIRROR_VARIABLE).ok().filter(|mirror| !mirror.is_empty());
    named.or_else(|| {
        let targets = Apt::host().targets()?;
        if !targets.is_empty() {
            return mirror_in(&targets);
        }
        let apt = Apt::own_lists(cache?).ok()?;
        let targets = apt.targets().filter(|targets| !targets.is_empty());
        mirror_in(&targets.or_else(|| apt.update().ok().and_then(|()| apt.targets()))?)
    })
}

/// Reason why a suite that was asked for a package does not have it.
pub(super) fn lacks(suite: &str, updated: Result<()>) -> String {
    let Err(error) = updated else {
        return format!("{suite} of the Debian mirror does not have it");
    };
    let reason = reason(error);
    if reason.contains("is not signed") || reason.contains("NO_PUBKEY") {
        return format!(
            "the signature of {suite} cannot be checked; install or update debian-archive-keyring"
        );
    }
    format!("{suite} of the Debian mirror cannot be read ({reason})")
}

/// apt's own words, without the command line.
pub(super) fn reason(error: Error) -> String {
    match error {
        Error::Helper { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// The value of a record's field.
pub(super) fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Runs apt; waits, up to a deadline, while another process holds one of its locks.
fn run(command: &mut Command) -> Result<()> {
    run_until(command, Instant::now() + LOCK_TIMEOUT)
}

/// `DPkg::Lock::Timeout` of apt knows only one of the three locks.
fn run_until(command: &mut Command, deadline: Instant) -> Result<()> {
    let mut told = false;
    loop {
        let done = helper::check(command);
        let locked = done.as_ref().is_err_and(is_locked);
        if !locked || Instant::now() >= deadline {
            return done;
        }
        if !told {
            let seconds = LOCK_TIMEOUT.as_secs();
            say(&format!("another process holds apt's lock; waiting up to {seconds} s for it"));
            told = true;
        }
        sleep(LOCK_INTERVAL);
    }
}

fn is_locked(error: &Error) -> bool {
    let Error::Helper { reason, .. } = error else { return false };
    ["Could not get lock", "Unable to lock", "Unable to acquire the dpkg"]
        .iter()
        .any(|words| reason.contains(words))
}

/// Folder with a package state of ours.
fn state_folder(cache: &Cache, name: &str) -> Result<PathBuf> {
    let folder = cache.root().join("apt").join(name);
    for below in ["lists/partial", "cache/archives/partial"] {
        let path = folder.join(below);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
    }
    Ok(folder)
}

fn state(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    [
        format!("Dir::State::lists={folder}/lists"),
        format!("Dir::Cache={folder}/cache"),
        // Root's downloads otherwise run as a user who may not write to root's cache folder.
        "APT::Sandbox::User=root".into(),
    ]
    .map(|option| format!("-o{option}"))
    .into()
}

fn mirror_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

/// Names Debian's keys; without that file, apt's own set of trusted keys decides.
fn signed_by() -> String {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if Path::new(keyring).exists() { format!("[signed-by={keyring}] ") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that fails as apt does while another process holds a lock, until `file` exists.
    fn locked_once(file: &Path, words: &str) -> Command {
        let mut command = Command::new("sh");
        let script = r#"[ -e "$0" ] && exit; touch "$0"; echo "E: $1" >&2; exit 100"#;
        command.args(["-c", script]).arg(file).arg(words);
        command
    }

    #[test]
    fn a_lock_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let words = [
            "Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)",
            "Unable to lock directory /var/lib/apt/lists/",
            "Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another \
             process using it?",
        ];
        for (number, words) in words.iter().enumerate() {
            let mut command = locked_once(&folder.path().join(number.to_string()), words);
            run_until(&mut command, Instant::now() + LOCK_TIMEOUT).unwrap();
        }
    }

    #[test]
    fn the_wait_for_a_lock_ends() {
        let mut command = locked_once(Path::new("/nonexistent/file"), "Could not get lock x");
        let error = run_until(&mut command, Instant::now() + LOCK_INTERVAL).unwrap_err();
        assert!(error.to_string().contains("Could not get lock x"), "{error}");
    }

    #[test]
    fn other_failures_are_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = locked_once(&folder.path().join("file"), "Unable to locate package x");
        let error = run_until(&mut command, Instant::now() + LOCK_TIMEOUT).unwrap_err();
        assert!(error.to_string().contains("Unable to locate package x"), "{error}");
    }

    #[test]
    fn the_mirror_is_debians_main_archive() {
        let known = "Other|Other|http://a.test/debian\nDebian|Debian-Security|http://m.test/sec\n\
                     Debian|Debian|http://m.test/deb\n";
        assert_eq!(mirror_in(known).as_deref(), Some("http://m.test/deb"));
        assert_eq!(mirror_in("Ubuntu|Ubuntu|http://m.test/debian\n"), None);
    }

    #[test]
    fn fields_are_read() {
        let record = "Package: x\nVersion: 6.12.1-1~deb12u1\nSize: 153476148\n";
        assert_eq!(field(record, "Version"), Some("6.12.1-1~deb12u1"));
        assert_eq!(field(record, "Origin"), None);
    }
}
