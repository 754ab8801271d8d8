//! `soft-roce target`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use soft_roce::{
    Result,
    target::{Target as TargetFile, TargetRoot},
};

use super::print;

/// Change the NVMe target while a program runs; called inside the guest
#[derive(Subcommand)]
pub(crate) enum Target {
    /// Let a host use a subsystem
    Allow {
        /// The subsystem
        nqn: String,
        /// The host
        host: String,
    },
    /// No longer let a host use a subsystem: its next connect is refused
    Disallow {
        /// The subsystem
        nqn: String,
        /// The host
        host: String,
    },
    /// Take the target down
    Down,
    /// Make a controller report a fatal status and disconnect
    Fatal {
        /// The subsystem
        nqn: String,
        /// The controller's number [default: all of the subsystem's]
        controller: Option<u16>,
    },
    /// Offer a subsystem at a port; the first one opens the port
    Link {
        #[command(subcommand)]
        what: Attachment,
    },
    /// Set one thing of the target
    ///
    /// Attributes have the kernel's names, with or without their attr_, param_, addr_, device_ or
    /// dhchap_. An empty VALUE clears a key, on kernels that can. PATH is below the kernel's nvmet
    /// folder, or an absolute one below its config or debug folder.
    #[command(override_usage = "soft-roce target set namespace NQN NSID ATTRIBUTE VALUE
       soft-roce target set ana PORT GROUP STATE
       soft-roce target set subsystem NQN ATTRIBUTE VALUE
       soft-roce target set host NQN ATTRIBUTE VALUE
       soft-roce target set port ID ATTRIBUTE VALUE
       soft-roce target set backing NQN NSID ATTRIBUTE VALUE
       soft-roce target set PATH VALUE")]
    Set {
        /// The object, its attribute and the value
        #[arg(required = true, num_args = 1.., allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Show the target, and who is connected
    Show {
        /// Output as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a subsystem from a port: its controllers end; the last one closes the port
    Unlink {
        #[command(subcommand)]
        what: Attachment,
    },
    /// Set up the target of a file
    Up {
        /// The target file
        file: PathBuf,
    },
}

/// Object that a subsystem is linked to.
#[derive(Subcommand)]
pub(crate) enum Attachment {
    /// A port
    Port {
        /// The port's number
        id: u16,
        /// The subsystem
        nqn: String,
    },
}

impl Target {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = TargetRoot::here();
        match self {
            Self::Allow { nqn, host } => root.allow(&nqn, &host)?,
            Self::Disallow { nqn, host } => root.disallow(&nqn, &host)?,
            Self::Down => root.down()?,
            Self::Fatal { nqn, controller } => root.fatal(&nqn, controller)?,
            Self::Link { what: Attachment::Port { id, nqn } } => root.link(id, &nqn)?,
            Self::Set { words } => {
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                root.set(&words)?;
            }
            Self::Show { json } => return show(&root, json),
            Self::Unlink { what: Attachment::Port { id, nqn } } => root.unlink(id, &nqn)?,
            Self::Up { file } => TargetFile::load(&file)?.up(&root)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(root: &TargetRoot, json: bool) -> Result<ExitCode> {
    let state = root.state()?;
    let text = if json {
        serde_json::to_string_pretty(&state).expect("a state has a JSON form")
    } else {
        state.to_string()
    };
    Ok(print(text.trim_end()))
}
