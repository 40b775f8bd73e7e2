//! Where results go beside the terminal.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::bench::output::record::Results;
use crate::bench::output::{csv, html, json, markdown, picture};

/// Files to write. `-` is standard output, in place of the text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Writing {
    /// Write everything, every trial included, as JSON; see `bench schema results`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a report with plots as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the figures as tables for a Markdown page
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a picture of the rates for a README, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// How results are written.
type Form = fn(&Results) -> String;

impl Writing {
    fn all(&self) -> [(&Option<PathBuf>, Form); 5] {
        [
            (&self.json, json),
            (&self.csv, csv::csv),
            (&self.html, html::page),
            (&self.markdown, markdown::tables),
            (&self.picture, picture::svg),
        ]
    }

    /// Whether one of them goes to standard output.
    pub fn takes_stdout(&self) -> bool {
        self.all()
            .iter()
            .any(|(file, _)| file.as_deref() == Some(Path::new("-")))
    }

    /// Where results are written as JSON.
    ///
    /// # Errors
    /// If they are not, or to standard output.
    pub fn json_file(&self) -> Result<&Path, String> {
        let file = self.json.as_deref().filter(|file| *file != Path::new("-"));
        file.ok_or_else(|| "--resume goes on from the file of --json: name one".into())
    }

    /// Finds out before a long run whether its results can be written after it.
    ///
    /// # Errors
    /// Files that can't be; two results for standard output.
    pub fn check(&self) -> Result<(), String> {
        let files = || self.all().into_iter().filter_map(|(file, _)| file.as_ref());
        if files()
            .filter(|file| file.as_path() == Path::new("-"))
            .count()
            > 1
        {
            return Err("only one result can go to standard output".into());
        }
        for file in files().filter(|file| file.as_path() != Path::new("-")) {
            let opened = OpenOptions::new().append(true).create(true).open(file);
            opened.map_err(|error| format!("can't write {}: {error}", file.display()))?;
        }
        Ok(())
    }

    /// Writes them all.
    ///
    /// # Errors
    /// The first that can't be written.
    pub fn write(&self, results: &Results) -> Result<(), String> {
        for (file, form) in self.all() {
            let Some(file) = file else { continue };
            let text = form(results);
            let done = if file.as_path() == Path::new("-") {
                match std::io::stdout().write_all(text.as_bytes()) {
                    Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
                    _ => Ok(()),
                }
            } else {
                std::fs::write(file, text)
            };
            done.map_err(|error| format!("can't write {}: {error}", file.display()))?;
        }
        Ok(())
    }
}
