//! fio over its engine: installed and built as users do, with the source of the fio that is here.

// bed: host

mod compile;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use compile::{PACKAGE, library};
use tempfile::TempDir;
use tests::SUBSYSTEM;

/// Engine, and the folder of the library that it is linked with.
struct Engine {
    folder: TempDir,
    path: PathBuf,
}

/// Engine of all tests; `None` if it can't be built here, which is told.
fn engine() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(build).as_ref();
    if engine.is_none() {
        println!("SKIPPED: no fio, or no source of it; run: apt-get install fio");
    }
    engine
}

fn build() -> Option<Engine> {
    Command::new("fio").arg("--version").output().ok()?;
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = folder.path().to_str().expect("UTF-8");
    let installed = Command::new(format!("{PACKAGE}/install"))
        .args(["--prefix", prefix, "--built"])
        .arg(library().parent().expect("a folder"))
        .output()
        .expect("a script");
    assert!(installed.status.success(), "{installed:?}");
    let path = folder.path().join("nvmf-fio.so");
    let built = compile_engine(&folder, &path, "");
    let message = String::from_utf8_lossy(&built.stderr);
    if message.contains("can be fetched") {
        println!("{message}");
        return None;
    }
    assert!(built.status.success(), "{message}");
    Some(Engine { folder, path })
}

/// Compiles the engine as a file of this path, with `CFLAGS`, against the library that was
/// installed into a folder.
fn compile_engine(installed: &TempDir, path: &Path, flags: &str) -> Output {
    Command::new(format!("{PACKAGE}/../fio/build"))
        .arg("--output")
        .arg(path)
        .env("PKG_CONFIG_PATH", installed.path().join("lib/pkgconfig"))
        .env("CFLAGS", flags)
        .output()
        .expect("a script")
}

impl Engine {
    /// Words of a command that runs fio with this engine, but for the job.
    fn command(&self) -> String {
        self.command_with(&self.path)
    }

    /// These words with another file for the engine.
    fn command_with(&self, engine: &Path) -> String {
        let (libraries, engine) = (self.folder.path().join("lib"), engine.display());
        let libraries = libraries.display();
        let target = format!("nvmf-rdma://10.10.10.1/{SUBSYSTEM}");
        format!(
            "env LD_LIBRARY_PATH={libraries} fio --ioengine=external:{engine} --target={target} \
             --ns=1 --reconnect-delay=1 --minimal --verify_state_save=0 --bs=4k --iodepth=32 "
        )
    }
}

/// Program of this build.
fn soft_roce() -> PathBuf {
    let library = library();
    library.ancestors().nth(2).expect("target/debug").join("soft-roce")
}

/// Runs a script in a guest with a target.
fn in_guest(script: &str) -> Output {
    let soft_roce = soft_roce();
    let kernel = std::env::var("SOFT_ROCE_KERNEL").expect("run by ./tests/run");
    let targets = Path::new(PACKAGE).join("../../tests/targets/commands.toml");
    let mut command = Command::new(soft_roce);
    command.args(["run", "--kernel", &kernel, "--timeout", "600", "--target"]).arg(targets);
    command.args(["--", "bash", "-ec", script]).output().expect("it runs")
}

fn succeed(script: &str) -> String {
    let output = in_guest(script);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}: {printed}\n{message}", output.status);
    printed
}

/// Four jobs write and verify, each a part of the namespace of its own.
const JOBS: &str = "--name=verify --rw=randwrite --verify=crc32c --verify_fatal=1 --numjobs=4 \
                    --size=4m --offset_increment=4m";

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn processes_verify_what_they_wrote() {
    let Some(engine) = engine() else { return };
    succeed(&format!("{}{JOBS}", engine.command()));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn threads_write_through_the_cache_trim_and_flush() {
    let Some(engine) = engine() else { return };
    let fio = engine.command();
    succeed(&format!(
        "{fio}{JOBS} --size=1m --thread --sync=1 --fsync=64
         {fio} --name=trim --rw=randtrim --size=4m --bs=64k --iodepth=4 --thread
         {fio} --name=paced --rw=read --size=256k --rate_iops=200 --thread"
    ));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn jobs_go_on_when_the_target_was_lost() {
    let Some(engine) = engine() else { return };
    go_on_when_the_target_was_lost(&engine.command());
}

/// AddressSanitizer looks at what the engine does with memory, and ends fio at a fault. Leaks it
/// would look for at the end, of which fio has its own.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_address_sanitizer_finds_nothing() {
    let Some(engine) = engine() else { return };
    let found = Command::new("cc").arg("-print-file-name=libasan.so").output().expect("cc");
    let sanitizer = String::from_utf8(found.stdout).expect("text");
    let sanitizer = sanitizer.trim();
    if !Path::new(sanitizer).is_absolute() {
        println!("SKIPPED: the compiler has no AddressSanitizer; run: apt-get install gcc");
        return;
    }
    let path = engine.folder.path().join("sanitized.so");
    let built = compile_engine(&engine.folder, &path, "-fsanitize=address");
    assert!(built.status.success(), "{built:?}");
    let variables = format!("env LD_PRELOAD={sanitizer} ASAN_OPTIONS=detect_leaks=0 ");
    let tried = in_guest(&format!("{variables} true"));
    if String::from_utf8_lossy(&tried.stderr).contains("Shadow memory range interleaves") {
        println!("SKIPPED: this kernel has programs where AddressSanitizer needs the addresses");
        return;
    }
    go_on_when_the_target_was_lost(&format!("{variables}{}", engine.command_with(&path)));
}

/// Jobs verify what they write, while the target's controllers fail twice.
fn go_on_when_the_target_was_lost(fio: &str) {
    let soft_roce = soft_roce();
    let soft_roce = soft_roce.display();
    succeed(&format!(
        "{fio}{JOBS} --loops=2 --rate_iops=300 --retry-first-connect=1 &
         job=$!
         for _ in 1 2; do
           sleep 2
           until {soft_roce} target fatal {SUBSYSTEM} 2>/dev/null; do
             kill -0 $job 2>/dev/null || exit 1
             sleep 0.5
           done
         done
         wait $job"
    ));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_jobs_end_with_a_sentence() {
    let Some(engine) = engine() else { return };
    let fio = engine.command();
    for (job, expected) in [
        ("--name=x --rw=read --size=4k --queue-size=1", "use 2 to 1024"),
        ("--name=x --rw=read --size=4k --ns=9", "namespace 9 is not there"),
        ("--name=x --rw=read --size=1000 --bs=100", "no blocks of 512 bytes"),
    ] {
        let output = in_guest(&format!("{fio}{job}"));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(expected), "{job}: {message}");
    }
}

/// The structures of another version differ, though the number that fio compares may not.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_fio_of_another_version_is_refused_by_name() {
    let Some(engine) = engine() else { return };
    let output = Command::new("fio").arg("--version").output().expect("fio");
    let version = String::from_utf8(output.stdout).expect("text");
    let version = version.trim();
    let mut bytes = fs::read(&engine.path).expect("the engine");
    let other = version.replace(|c: char| c.is_ascii_digit(), "0");
    let found: Vec<_> = bytes
        .windows(version.len())
        .enumerate()
        .filter(|(_, window)| *window == version.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty(), "the engine knows the version");
    for at in found {
        bytes[at..at + version.len()].copy_from_slice(other.as_bytes());
    }
    let path = engine.folder.path().join("other.so");
    fs::write(&path, bytes).expect("a file");
    let output = Command::new("fio")
        .arg(format!("--ioengine=external:{}", path.display()))
        .args(["--name=x", "--size=4k"])
        .env("LD_LIBRARY_PATH", engine.folder.path().join("lib"))
        .output()
        .expect("fio");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&format!("for {other}, and this is {version}")), "{message}");
    assert!(!output.status.success(), "{message}");
}

/// The engine has every option of a connection, but for those of several paths, which it does not
/// use.
#[test]
fn the_options_of_the_engine_are_those_of_a_connection() {
    let source = fs::read_to_string(format!("{PACKAGE}/../fio/nvmf.c")).expect("the engine");
    for (name, _) in nvmf_options::pairs::OptionPairs::all() {
        let is_offered = source.contains(&format!("o(\"{name}\")"));
        assert_eq!(is_offered, !["path", "iopolicy"].contains(&name.as_str()), "{name}");
    }
}
