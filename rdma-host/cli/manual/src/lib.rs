//! Manual pages and shell completions of a command line, made from its clap definition.
//!
//! Names, synopses, options and subcommands are clap's; examples are those of `after_help`. What
//! clap has no field for is stated by the program, as a [`Section`].
#![forbid(unsafe_code)]

mod width;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

pub use width::{WIDTH_MIN, help_width};

/// Subcommand that makes the files of an installation.
#[derive(Clone, Debug, Subcommand)]
pub enum Generate {
    /// Write a manual page for each command.
    Man {
        /// Folder of the pages; made if it does not exist.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Print the completions of a shell.
    Completions {
        /// Shell that is to read them.
        shell: Shell,
    },
}

/// Section of a manual page: a heading, and terms with their explanations.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Heading in capitals, as `EXIT STATUS`.
    pub heading: &'static str,
    /// Condition for a command's page to have the section.
    pub applies: fn(&Command) -> bool,
    /// Terms, each with its explanation.
    pub entries: &'static [(&'static str, &'static str)],
}

/// Manual of a program.
#[derive(Clone, Debug)]
pub struct Manual {
    /// Definition of the command line.
    pub command: Command,
    /// Sections between the options and the examples, in their order.
    pub sections: &'static [Section],
    /// Pages that the program's own page names under SEE ALSO, as `nvme(1)`.
    pub see_also: &'static [&'static str],
}

impl Generate {
    /// Makes the files; returns the text for standard output, which is empty for manual pages.
    ///
    /// # Errors
    ///
    /// A page cannot be written; the message names its file.
    pub fn run(&self, manual: Manual) -> io::Result<String> {
        match self {
            Self::Man { folder } => manual.write_pages(folder).map(|()| String::new()),
            Self::Completions { shell } => Ok(manual.completions(*shell)),
        }
    }
}

impl Manual {
    /// Writes the page of the program and of every subcommand, as `nvmf.1` and `nvmf-read.1`.
    ///
    /// # Errors
    ///
    /// A page cannot be written; the message names its file.
    pub fn write_pages(self, folder: &Path) -> io::Result<()> {
        let named = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
        };
        fs::create_dir_all(folder).map_err(named(folder))?;
        let mut command = self.command.disable_help_subcommand(true);
        command.build();
        let pages = Pages {
            source: format!("{} {}", command.get_name(), command.get_version().unwrap_or_default()),
            title: format!("{} manual", command.get_name()),
            sections: self.sections,
            see_also: self.see_also,
        };
        for (command, parent) in with_subcommands(&command, None) {
            let path = folder.join(format!("{}.1", page_name(command)));
            let text = pages.page(command, parent).map_err(named(&path))?;
            File::create(&path).and_then(|mut file| file.write_all(&text)).map_err(named(&path))?;
        }
        Ok(())
    }

    /// Completions of a shell, as a script.
    fn completions(mut self, shell: Shell) -> String {
        let name = self.command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut self.command, name, &mut script);
        String::from_utf8(script).expect("clap's names are UTF-8")
    }
}

/// Parts that all pages of a program have in common.
struct Pages {
    source: String,
    title: String,
    sections: &'static [Section],
    see_also: &'static [&'static str],
}

impl Pages {
    fn page(&self, command: &Command, parent: Option<&Command>) -> io::Result<Vec<u8>> {
        let man = Man::new(command.clone());
        let mut page = Vec::new();
        // Without a date: clap_mangen would leave it out, so that the source took its place.
        let title = page_name(command).to_uppercase();
        writeln!(page, ".TH {title} 1 \"\" \"{}\" \"{}\"", self.source, self.title)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        for section in self.sections {
            if (section.applies)(command) {
                section.to_roff().to_writer(&mut page)?;
            }
        }
        if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
            literal_sections(&text.to_string()).to_writer(&mut page)?;
        }
        self.see_also(command, parent).to_writer(&mut page)?;
        Ok(page)
    }

    /// Pages above and below this one; for the program's own page, those of other programs too.
    fn see_also(&self, command: &Command, parent: Option<&Command>) -> Roff {
        let others = if parent.is_some() { &[] } else { self.see_also };
        let mut names: Vec<_> = parent.into_iter().map(page_name).map(page_reference).collect();
        names.extend(shown_subcommands(command).map(page_name).map(page_reference));
        names.extend(others.iter().map(|name| (*name).to_owned()));
        let mut roff = Roff::new();
        if !names.is_empty() {
            roff.control("SH", ["SEE ALSO"]).text([roman(names.join(", "))]);
        }
        roff
    }
}

impl Section {
    fn to_roff(self) -> Roff {
        let mut roff = Roff::new();
        roff.control("SH", [self.heading]);
        for (term, text) in self.entries {
            roff.control("TP", []).text([bold(*term)]).text([roman(*text)]);
        }
        roff
    }
}

/// Sections of a text of clap: a line that ends with a colon and is not indented is a heading, and
/// the indented lines after it are shown as they are. Other lines are notes.
fn literal_sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut heading = "";
    let mut literal = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let indented = line.starts_with(' ');
        if literal && !indented {
            roff.control("fi", []);
            literal = false;
        }
        if let (false, Some(title)) = (indented, line.strip_suffix(':')) {
            heading = title;
            roff.control("SH", [section_heading(title).as_str()]);
            continue;
        }
        if heading.is_empty() {
            heading = "Notes";
            roff.control("SH", ["NOTES"]);
        }
        if indented && !literal {
            roff.control("nf", []);
            literal = true;
        }
        roff.text([roman(line.trim_start())]);
    }
    if literal {
        roff.control("fi", []);
    }
    roff
}

/// Heading of a section as manual pages have it.
fn section_heading(title: &str) -> String {
    match title {
        "Example" | "Examples" => "EXAMPLES".to_owned(),
        other => other.to_uppercase(),
    }
}

fn page_reference(name: &str) -> String {
    format!("{name}(1)")
}

/// Name of the command's page. Only a built command has it.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn shown_subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Command and all below it, each with the one above it.
fn with_subcommands<'a>(
    command: &'a Command,
    parent: Option<&'a Command>,
) -> Vec<(&'a Command, Option<&'a Command>)> {
    let below = shown_subcommands(command).flat_map(|sub| with_subcommands(sub, Some(command)));
    std::iter::once((command, parent)).chain(below).collect()
}
