//! Arguments, settings, wiring, reports and exit codes: one file a command family.

mod adopt;
mod backup;
pub mod build;
mod config;
pub mod diff;
pub mod failure;
mod framework;
mod history;
pub mod image;
mod inspect;
mod node;
pub mod options;
mod packed;
pub mod places;
mod prune;
mod quoted;
pub mod rollout;
mod services;
pub mod status;
mod store;
mod table;
pub mod timings;
pub mod ui;
pub mod versions;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::diagnose::Exit;

pub use failure::{Failure, Outcome};
pub use ui::Ui;

/// Container-image builder and Docker-mode upgrader for the TARS RPC framework.
#[derive(Debug, Parser)]
#[command(name = "tarsup", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    json: bool,

    /// Say more on standard error; twice, even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

/// The commands. Each family lives in a file of its own.
#[derive(Debug, Subcommand)]
enum Command {
    Build(build::BuildArgs),
    Copy(image::CopyArgs),
    Inspect(inspect::InspectArgs),
    Lock(versions::LockArgs),
    Verify(versions::VerifyArgs),
    Images(versions::ImagesArgs),
    Store(store::StoreArgs),
    Prune(prune::PruneArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Config(config::ConfigArgs),
    Plan(rollout::PlanArgs),
    Up(rollout::UpArgs),
    Upgrade(rollout::UpgradeArgs),
    Restart(rollout::RestartArgs),
    Migrate(rollout::MigrateArgs),
    Rollback(rollout::RollbackArgs),
    Resume(rollout::ResumeArgs),
    Status(status::StatusArgs),
    Services(services::ServicesArgs),
    Down(rollout::DownArgs),
    Templates(framework::TemplatesArgs),
    AcceptDatabase(framework::AcceptDatabaseArgs),
    Node(node::NodeArgs),
    Adopt(adopt::AdoptArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Readdress(backup::ReaddressArgs),
}

impl Command {
    /// True where it is asked where the time goes.
    fn is_timed(&self) -> bool {
        match self {
            Self::Build(args) => args.timings,
            Self::Copy(args) => args.timings,
            _ => false,
        }
    }
}

fn run(command: Command, ui: &Ui) -> Outcome {
    match command {
        Command::Build(args) => build::run(&args, ui),
        Command::Copy(args) => image::copy(&args, ui),
        Command::Inspect(args) => inspect::inspect(&args, ui),
        Command::Lock(args) => versions::lock(&args, ui),
        Command::Verify(args) => versions::verify(&args, ui),
        Command::Images(args) => versions::images(&args, ui),
        Command::Store(args) => store::store(&args, ui),
        Command::Prune(args) => prune::prune(&args, ui),
        Command::History(args) => history::history(&args, ui),
        Command::Diff(args) => diff::compare(&args, ui),
        Command::Config(args) => config::config(&args, ui),
        Command::Plan(args) => rollout::plan(&args, ui),
        Command::Up(args) => rollout::up(&args, ui),
        Command::Upgrade(args) => rollout::upgrade(&args, ui),
        Command::Restart(args) => rollout::restart(&args, ui),
        Command::Migrate(args) => rollout::migrate(&args, ui),
        Command::Rollback(args) => rollout::rollback(&args, ui),
        Command::Resume(args) => rollout::resume(&args, ui),
        Command::Status(args) => status::status(&args, ui),
        Command::Services(args) => services::services(&args, ui),
        Command::Down(args) => rollout::down(&args, ui),
        Command::Templates(args) => framework::templates(&args, ui),
        Command::AcceptDatabase(args) => framework::accept_database(&args, ui),
        Command::Node(args) => node::node(&args, ui),
        Command::Adopt(args) => adopt::adopt(&args, ui),
        Command::Backup(args) => backup::backup(&args, ui),
        Command::Restore(args) => backup::restore(&args, ui),
        Command::Readdress(args) => backup::readdress(&args, ui),
    }
}

/// Parses the arguments, runs the command, reports its failure; the exit code of the process.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error, arguments.iter().any(|argument| argument == "--json")),
    };
    let timings = cli.command.is_timed().then(timings::Timings::default);
    trace(cli.verbose, timings.clone());
    let ui = Ui::new(cli.json).timed(timings);
    let exit = run(cli.command, &ui).unwrap_or_else(|failure| failure.report(&ui));
    match ui.unwritten() {
        Some(error) => {
            ui.error(&format!("the result cannot be written to standard output: {error}"));
            exit.max(Exit::Failed)
        }
        None => exit,
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&Cli::command().try_get_matches_from(arguments)?)
}

/// Help and version are no errors; wrong usage is exit 2, and JSON where JSON was asked for.
fn report_usage(error: &clap::Error, json: bool) -> Exit {
    if !error.use_stderr() {
        let is_written = error.print().is_ok() && !tarsup_standard_output::was_closed();
        return if is_written { Exit::Done } else { Exit::Failed };
    }
    if json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        failure::report_usage_json(&Ui::new(true), message);
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

/// `TARSUP_LOG` takes tracing's filter syntax and wins over `-v`.
fn trace(verbose: u8, timings: Option<timings::Timings>) {
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::filter::{EnvFilter, Targets};
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level = match verbose {
        0 => "warn",
        1 => "tarsup=info",
        2 => "tarsup=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("TARSUP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let words = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::DEBUG);
    tracing_subscriber::registry()
        .with(words.with_filter(filter))
        .with(timings.map(|timings| timings.with_filter(ours)))
        .init();
}
