//! Building a kernel, once: fetch, configure, compile, and keep the program in the cache.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{
    Error, Result,
    folder::remove_folder,
    helper,
    kernel::{
        Kernel, KernelInfo, Patched, Series,
        cache::{Cache, Lock},
        config, info, patch,
        source::Source,
    },
    packages::{self, Lists, SourcePackage},
    progress::{Objects, say, to_compile},
};

/// Names a source tree or tarball to build from, in place of a package.
pub const SOURCE_VARIABLE: &str = "SOFT_ROCE_KERNEL_SOURCE";

/// Number of the log's last lines that a failed build shows.
const TAIL_LINES: usize = 20;

/// Number of errors from further up that it shows as well.
const ERROR_LINES: usize = 5;

/// A check of a kernel program that was just built; it fails with the cause when the kernel does
/// not work on this machine.
pub type Trial<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// A kernel to be built.
#[derive(Clone, Debug)]
pub struct Build {
    series: Series,
    source: Option<PathBuf>,
    refresh: bool,
    jobs: usize,
}

impl Build {
    /// A build of the newest source of that series, or of what [`SOURCE_VARIABLE`] names.
    #[must_use]
    pub fn new(series: Series) -> Self {
        let source = std::env::var_os(SOURCE_VARIABLE).filter(|path| !path.is_empty());
        let jobs = std::thread::available_parallelism().map_or(1, Into::into);
        Self { series, source: source.map(Into::into), refresh: false, jobs }
    }

    /// Builds from this tree or tarball.
    #[must_use]
    pub fn source(mut self, path: PathBuf) -> Self {
        self.source = Some(path);
        self
    }

    /// Looks for a newer source even when a kernel of this series is there.
    #[must_use]
    pub fn refresh(mut self) -> Self {
        self.refresh = true;
        self
    }

    /// Sets the number of compilers that run at once.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// The kernel of this build if it is in the cache; downloads nothing.
    #[must_use]
    pub fn cached(&self, cache: &Cache) -> Option<PathBuf> {
        let replacement = || match self.source {
            Some(_) => None,
            None => cache.current(&self.series.replacement()),
        };
        cache.current(&self.name()).or_else(replacement)
    }

    /// The cache's key of this build: the source's version and the hash of our options and patches.
    ///
    /// # Errors
    ///
    /// When there is no source.
    pub fn key(&self, cache: &Cache) -> Result<String> {
        let source = self.find_source(cache, Lists::Machine)?;
        Ok(Cache::key(source.version()))
    }

    /// Builds unless the cache has it, tries what was built, and returns the kernel program.
    ///
    /// Two builds at once are fine: the second waits and uses the first one's result. A killed
    /// build is resumed by the next.
    ///
    /// # Errors
    ///
    /// Missing packages, no source, a compiler's failure, a kernel that fails its `trial`, or the
    /// cache folder not writable.
    pub fn build(&self, cache: &Cache, trial: Trial<'_>) -> Result<PathBuf> {
        if let Some(linux) = self.cached(cache).filter(|_| !self.refresh) {
            return Ok(linux);
        }
        if let Some(path) = &self.source {
            path.canonicalize().map_err(Error::io("open", path))?;
        }
        let lock = cache.lock(&format!("build-{}", self.name()), || {
            say("another build of this kernel is under way; waiting for it");
        })?;
        if let Some(linux) = self.cached(cache).filter(|_| !self.refresh) {
            return Ok(linux);
        }
        packages::ensure(&packages::to_build())?;
        let build = |lists| {
            let source = self.find_source(cache, lists)?;
            let entry = cache.entry(source.version());
            if !entry.join("linux").is_file() {
                let folder = cache.root().join(format!("build-{}", self.name()));
                let (entry, jobs) = (&entry, self.jobs);
                Tree { source: &source, entry, folder: &folder, jobs, trial }.build(&lock)?;
            }
            let replaces = source.replaces(self.series);
            let name = if replaces { self.series.replacement() } else { self.name() };
            cache.point(&name, &entry)?;
            Ok(entry.join("linux"))
        };
        match build(Lists::Machine) {
            // The mirror dropped what an old package list names; or there is no network.
            Err(error @ Error::Download { .. }) => match build(Lists::Fresh) {
                Err(Error::NoSource { .. }) => Err(error),
                done => done,
            },
            done => done,
        }
    }

    /// The name of this build's result in the cache.
    fn name(&self) -> String {
        use sha2::{Digest, Sha256};
        let Some(path) = &self.source else { return self.series.name().into() };
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("source-{digits}")
    }

    fn find_source(&self, cache: &Cache, lists: Lists) -> Result<Source> {
        match &self.source {
            Some(path) => Source::given(path),
            None => SourcePackage::find(self.series, cache, lists).map(Source::Package),
        }
    }
}

/// The kernel program for `kernel`: the one named, the one in the cache, or one built now.
///
/// # Errors
///
/// A program that is not there, or a build that fails.
pub fn locate(
    kernel: &Kernel,
    cache: impl FnOnce() -> Result<Cache>,
    trial: Trial<'_>,
) -> Result<PathBuf> {
    match kernel {
        Kernel::Program(path) => path
            .canonicalize()
            .ok()
            .filter(|path| path.is_file())
            .ok_or_else(|| Error::NoKernelProgram(path.clone())),
        Kernel::Series(series) => Build::new(*series).build(&cache()?, trial),
    }
}

/// A source tree on its way to a cache entry.
struct Tree<'a> {
    source: &'a Source,
    entry: &'a Path,
    folder: &'a Path,
    jobs: usize,
    trial: Trial<'a>,
}

impl Tree<'_> {
    fn build(&self, lock: &Lock) -> Result<()> {
        let started = Instant::now();
        lock.inherit().map_err(Error::io("lock", self.folder))?;
        self.prepare_folder()?;
        let tree = self.source.unpack(self.folder)?;
        let info = self.configure(&tree)?;
        self.compile(&tree, &self.folder.join("build.log"))?;
        say("trying the new kernel");
        (self.trial)(&tree.join("linux"))?;
        self.publish(&tree, &info)?;
        remove_folder(self.folder)?;
        let seconds = started.elapsed().as_secs();
        say(&format!("kernel {} built in {seconds} s; it works", self.source.version()));
        info.limits().iter().for_each(|limit| say(limit));
        Ok(())
    }

    /// Keeps what an interrupted build of the same source and recipe left, removes anything else.
    fn prepare_folder(&self) -> Result<()> {
        let marker = self.folder.join("source");
        let key = Cache::key(self.source.version());
        if fs::read_to_string(&marker).is_ok_and(|left| left == key) {
            return Ok(());
        }
        remove_folder(self.folder)?;
        fs::create_dir_all(self.folder).map_err(Error::io("create", self.folder))?;
        fs::write(&marker, key).map_err(Error::io("write", &marker))
    }

    /// Patches and configures the tree, unless an interrupted build has done that.
    fn configure(&self, tree: &Path) -> Result<KernelInfo> {
        let marker = tree.join(".soft-roce-configured");
        if let Ok(info) = KernelInfo::load(&marker) {
            say("resuming an interrupted build");
            return Ok(info);
        }
        let patched = self.patch(tree)?;
        helper::check(make(tree).arg("tinyconfig"))?;
        config::append(tree)?;
        helper::check(make(tree).arg("olddefconfig"))?;
        let missing_options = config::verify(tree)?;
        let version = self.source.version().to_owned();
        let info = KernelInfo { version, recipe: config::hash(), patched, missing_options };
        info.store(&marker)?;
        Ok(info)
    }

    /// Applies our patches once: a tree that was patched and not configured says what it got.
    fn patch(&self, tree: &Path) -> Result<Patched> {
        let marker = tree.join(".soft-roce-patched");
        if let Some(patched) = fs::read(&marker).ok().and_then(|t| serde_json::from_slice(&t).ok())
        {
            return Ok(patched);
        }
        let patched = patch::apply(tree)?;
        let text = serde_json::to_vec(&patched).expect("strings always have a JSON form");
        fs::write(&marker, text).map_err(Error::io("write", &marker))?;
        Ok(patched)
    }

    fn compile(&self, tree: &Path, log: &Path) -> Result<()> {
        let mut file = append_to(log)?;
        let expected = self.expected(tree);
        let mut make = make(tree);
        make.arg(format!("-j{}", self.jobs)).arg("linux");
        let step = helper::words(&make);
        let cannot = |action| Error::io(action, log);
        let (reader, writer) = io::pipe().map_err(cannot("open a pipe for"))?;
        let error_writer = writer.try_clone().map_err(cannot("open a pipe for"))?;
        make.stdout(writer).stderr(error_writer);
        let mut child = make.spawn().map_err(cannot("start make for"))?;
        // The command holds the pipe's write ends: without this the reader never ends.
        drop(make);
        let mut objects = Objects::new(expected);
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.map_err(cannot("read"))?;
            let line = String::from_utf8_lossy(&line);
            writeln!(file, "{line}").map_err(cannot("write"))?;
            objects.line(&line);
        }
        let status = child.wait().map_err(cannot("wait for make and"))?;
        drop(objects);
        if status.success() {
            return Ok(());
        }
        Err(Error::Build { step, log: log.into(), tail: tail(log) })
    }

    /// Number of files left to compile, by a dry run, which ends early: with an error where it
    /// meets a file that is yet to be made.
    fn expected(&self, tree: &Path) -> u64 {
        let dry = make(tree).args(["-n", "linux"]).stderr(Stdio::null()).output();
        dry.map_or(0, |done| to_compile(&String::from_utf8_lossy(&done.stdout)))
    }

    /// One rename makes the entry appear whole.
    fn publish(&self, tree: &Path, info: &KernelInfo) -> Result<()> {
        let fresh = self.entry.with_added_extension("new");
        remove_folder(&fresh)?;
        fs::create_dir_all(&fresh).map_err(Error::io("create", &fresh))?;
        for (from, to) in [("linux", "linux"), (".config", "config")] {
            let from = tree.join(from);
            fs::copy(&from, fresh.join(to)).map_err(Error::io("copy", &from))?;
        }
        info.store(&fresh.join(info::FILE))?;
        remove_folder(self.entry)?;
        fs::rename(&fresh, self.entry).map_err(Error::io("rename", &fresh))
    }
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(tree).arg("ARCH=um").stdin(Stdio::null()).env("LC_ALL", "C");
    // A build inside a cargo or make run must not talk to that one's job server, nor take over
    // settings for another kernel.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARCH", "CROSS_COMPILE", "KBUILD_OUTPUT"] {
        make.env_remove(name);
    }
    make
}

fn append_to(log: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(log).map_err(Error::io("write", log))
}

/// The last lines, and before them the errors that other compilers' lines have pushed away.
fn tail(log: &Path) -> Vec<String> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(TAIL_LINES));
    let errors = before.iter().rev().filter(|line| line.contains("error:")).take(ERROR_LINES);
    let mut shown: Vec<_> = errors.collect();
    shown.reverse();
    shown.into_iter().chain(last).map(|&line| line.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text: String = (0..50).map(|number| format!("line {number}\n")).collect();
        fs::write(&log, format!("x.c:1: error: no\n{text}")).unwrap();
        let tail = tail(&log);
        assert_eq!(tail.len(), 1 + TAIL_LINES);
        assert_eq!(tail[0], "x.c:1: error: no");
        assert_eq!(tail.last().unwrap(), "line 49");
    }

    #[test]
    fn a_given_source_has_its_own_name() {
        let mut build = Build::new(Series::SixTwelve);
        build.source = None;
        assert_eq!(build.name(), "6.12");
        let given = build.clone().source("/tmp".into()).name();
        assert!(given.starts_with("source-") && given != build.source("/".into()).name());
    }

    #[test]
    fn a_replacement_serves_until_the_series_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().into());
        let mut build = Build::new(Series::SixTwelve);
        build.source = None;
        for (name, version) in
            [(build.series.replacement(), "6.8.0-31.31"), (build.name(), "6.12.1")]
        {
            let entry = cache.entry(version);
            fs::create_dir(&entry).unwrap();
            fs::write(entry.join("linux"), "").unwrap();
            cache.point(&name, &entry).unwrap();
            assert_eq!(build.cached(&cache), Some(entry.join("linux")));
        }
        assert_eq!(build.source("/".into()).cached(&cache), None);
    }

    #[test]
    fn a_kernel_program_that_is_not_there_is_named() {
        let kernel = Kernel::Program("/nonexistent/linux".into());
        let error = locate(&kernel, || Err(Error::NoCache), &|_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/linux"), "{error}");
    }
}
