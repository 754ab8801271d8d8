//! `modprobe` inside a guest, for programs and, in QEMU, for the kernel itself.
//!
//! User-Mode Linux has no loadable modules: there [`builtin`] answers. What follows is for QEMU.
//!
//! The machine may lack kmod, and the package's modules have no index for it. Options are those of
//! kmod's `modprobe` that scripts use; the rest is refused.

use std::{
    env,
    ffi::{CString, OsString},
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    process::ExitCode,
};

use rustix::system::delete_module;

use super::{
    boot::{self, MODULES_VARIABLE},
    builtin,
    modules::{self, Index},
};
use crate::{Error, Result};

/// Name under which the program is this command.
pub(crate) const NAME: &str = "modprobe";

/// Folder of the command, for the program's search path.
pub(crate) const FOLDER: &str = "/run/soft-roce/bin";

/// Link to the folder of the kernel's modules.
const MODULES: &str = "/run/soft-roce/modules";

/// Place where programs look for modules.
const USUAL_MODULES: &str = "/lib/modules";

/// `O_NONBLOCK`, with which a module that is in use is refused instead of waited for.
const REFUSE_BUSY: i32 = 0o4000;

/// Puts the command in its place.
pub(crate) fn install() -> Result<()> {
    let program = env::current_exe().map_err(Error::io("find", "soft-roce"))?;
    let command = Path::new(FOLDER).join(NAME);
    fs::create_dir_all(FOLDER).map_err(Error::io("create", FOLDER))?;
    symlink(program, &command).map_err(Error::io("create", &command))?;
    let Some(folder) = env::var_os(MODULES_VARIABLE) else { return Ok(()) };
    let folder = Path::new(&folder);
    symlink(folder, MODULES).map_err(Error::io("create", MODULES))?;
    let setting = "/proc/sys/kernel/modprobe";
    fs::write(setting, command.as_os_str().as_encoded_bytes())
        .map_err(Error::io("write", setting))?;
    // Without that folder on the host there is no mount point; the command finds them all the same.
    if let Some(all) = folder.parent() {
        let _ = rustix::mount::mount_bind(all, USUAL_MODULES);
    }
    Ok(())
}

/// Loads or removes the modules that the command line names.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    if !Path::new(MODULES).exists() {
        return builtin::run(words);
    }
    let words: Option<Vec<String>> = words.map(|word| word.into_string().ok()).collect();
    let request = words.ok_or_else(|| "names are text".into()).and_then(|words| parse(&words));
    let (request, done) = match request {
        Ok(request) => (request.clone(), request.execute()),
        Err(reason) => (Request::default(), Err(reason)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            if !request.quiet {
                eprintln!("modprobe: {reason}");
            }
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Request {
    quiet: bool,
    remove: bool,
    dry_run: bool,
    modules: Vec<String>,
    parameters: String,
}

fn parse(words: &[String]) -> std::result::Result<Request, String> {
    let mut request = Request::default();
    let (mut all, mut options_ended) = (false, false);
    let mut names = Vec::new();
    for word in words {
        match word.as_str() {
            _ if options_ended => names.push(word.clone()),
            "--" => options_ended = true,
            "-q" | "--quiet" => request.quiet = true,
            "-r" | "--remove" => request.remove = true,
            "-n" | "--dry-run" | "--show" => request.dry_run = true,
            "-a" | "--all" => all = true,
            "-v" | "--verbose" | "-b" | "--use-blacklist" | "-s" | "--syslog" => {}
            option if option.starts_with('-') => {
                return Err(format!("option {option} is not known in this guest"));
            }
            _ => names.push(word.clone()),
        }
    }
    if names.is_empty() {
        return Err("no module is named".into());
    }
    if !all && !request.remove {
        request.parameters = names.split_off(1).join(" ");
    }
    request.modules = names;
    Ok(request)
}

impl Request {
    fn execute(&self) -> std::result::Result<(), String> {
        let index = Index::load(Path::new(MODULES)).map_err(|error| error.to_string())?;
        self.modules.iter().try_for_each(|name| {
            if !index.knows(name) {
                return Err(format!("FATAL: Module {name} not found in directory {MODULES}"));
            }
            match (self.dry_run, self.remove) {
                (true, _) => Ok(()),
                (false, true) => remove(name).map_err(|error| format!("FATAL: {name}: {error}")),
                (false, false) => self.insert(&index, name),
            }
        })
    }

    fn insert(&self, index: &Index, name: &str) -> std::result::Result<(), String> {
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let order = index.in_order(&[name]);
        let last = order.len().saturating_sub(1);
        for (place, (name, module)) in order.into_iter().enumerate() {
            if Path::new("/sys/module").join(name).join("initstate").exists() {
                continue;
            }
            let mut parameters = modules::parameters(&command_line, name);
            if place == last && !self.parameters.is_empty() {
                parameters = format!("{parameters} {}", self.parameters);
            }
            let file = Path::new(MODULES).join(&module.path);
            boot::load(name, &file, parameters.trim())
                .map_err(|error| format!("ERROR: {error}"))?;
        }
        Ok(())
    }
}

fn remove(name: &str) -> io::Result<()> {
    let name = modules::plain(name);
    if !Path::new("/sys/module").join(&name).join("initstate").exists() {
        return Ok(());
    }
    Ok(delete_module(&CString::new(name)?, REFUSE_BUSY)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> std::result::Result<Request, String> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_kernels_and_scripts_words_are_understood() {
        let kernel = request(&["-q", "--", "crypto-hmac(sha256)"]).unwrap();
        assert!(kernel.quiet && kernel.modules == ["crypto-hmac(sha256)"]);
        let script = request(&["null_blk", "nr_devices=1", "bs=512"]).unwrap();
        assert_eq!(script.parameters, "nr_devices=1 bs=512");
        assert_eq!(request(&["-a", "a", "b"]).unwrap().modules, ["a", "b"]);
        assert!(request(&["-r", "a"]).unwrap().remove);
        assert!(request(&[]).unwrap_err().contains("no module"));
        assert!(request(&["--dump-modversions", "x"]).unwrap_err().contains("--dump"));
    }
}
