//! Runs the database's own tools inside a container, by a script that gets the account over standard input.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::account::Account;
use super::{BackupError, Place, backup_name};
use crate::deploy::Desired;
use crate::engine::{Attached, Engine, EngineError, Environment, Executing, Printed};
use crate::secretive::Secretive;
use crate::upgrade::DeployId;
use crate::upgrade::cluster_probe::{self, asker};
use crate::upgrade::inside::is_missing;
use crate::upgrade::mask::Mask;
use crate::upgrade::run::stopped;

/// What runs in there.
const SCRIPT: &str = include_str!("inside.sh");
/// How a container of ours waits for it.
const WAIT: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"];
/// The end of the option file.
const END: &str = "#end\n";
/// How much of what a tool says on its standard error is kept.
const SAID: usize = 4096;
/// How long the engine may take to say how a command ended whose streams have ended.
const ENDING: Duration = Duration::from_secs(10);

/// A container with the tools, and the account for them.
pub(super) struct Inside<'a> {
    engine: &'a dyn Engine,
    deployment: &'a str,
    /// The container's name.
    pub(super) container: String,
    /// True where it was made for this.
    is_own: bool,
    options: Secretive,
    mask: Mask,
    stop: watch::Receiver<bool>,
}

/// What is sent into a container after the option file: piece by piece, to its end.
pub(super) type Source<'a> = Box<dyn FnMut() -> io::Result<Option<Bytes>> + Send + 'a>;

/// What goes on with what is printed.
pub(super) type Sink<'a> = Box<dyn FnMut(&[u8]) -> Result<(), BackupError> + Send + 'a>;

impl<'a> Inside<'a> {
    /// Finds the container, or makes one.
    pub(super) async fn open(
        engine: &'a dyn Engine,
        desired: &'a Desired,
        id: &DeployId,
        place: &Place,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, BackupError> {
        let account = Account::find(engine, desired).await?;
        let mask = Mask::of_values([("MYSQL_ROOT_PASSWORD", account.password())]);
        let deployment = desired.deployment.as_str();
        match place {
            Place::Container(name) => Ok(Self {
                engine,
                deployment,
                container: name.clone(),
                is_own: false,
                options: account.beside_the_server(),
                mask,
                stop,
            }),
            Place::Image(image) => {
                let service = asker(desired).ok_or_else(|| BackupError::Account {
                    why: "the deployment has no account at the database".to_owned(),
                })?;
                let (options, name) = (account.elsewhere()?, backup_name(deployment, id));
                let image = image.to_string();
                cluster_probe::make_with(
                    engine,
                    desired,
                    service,
                    &image,
                    &name,
                    &Environment::default(),
                    &WAIT,
                )
                .await?;
                Ok(Self { engine, deployment, container: name, is_own: true, options, mask, stop })
            }
        }
    }

    /// Removes what was made; what stays is removed by the next run.
    pub(super) async fn close(&self) -> Result<(), EngineError> {
        if self.is_own {
            cluster_probe::close(self.engine, self.deployment, &self.container).await
        } else {
            Ok(())
        }
    }

    /// Runs one command of the script to its end.
    pub(super) async fn run(
        &self,
        words: &[&str],
        mut sink: Sink<'_>,
        source: Option<Source<'_>>,
    ) -> Result<(), BackupError> {
        let command: Vec<&str> =
            ["sh", "-c", SCRIPT, "tarsup-backup"].into_iter().chain(words.iter().copied()).collect();
        let mut stop = self.stop.clone();
        let begun = self.engine.exec_attached(&self.container, &command).await;
        let Executing { id, streams: Attached { mut output, mut input } } = match begun {
            Ok(begun) => begun,
            Err(error) if is_missing(&error.to_string()) => return Err(self.no_tool("it has no shell")),
            Err(error) => return Err(error.into()),
        };
        let mut said = Vec::new();
        let feed = async {
            let options = format!("{}{END}", self.options.expose());
            let mut is_sent =
                input.write_all(options.as_bytes()).await.is_ok() && input.flush().await.is_ok();
            if let Some(mut source) = source {
                while is_sent && let Some(piece) = source().map_err(BackupError::Source)? {
                    is_sent = input.write_all(&piece).await.is_ok();
                }
                // Where it has ended meanwhile, its exit code tells why.
                is_sent = is_sent && input.flush().await.is_ok() && input.shutdown().await.is_ok();
            }
            Ok::<_, BackupError>(is_sent)
        };
        let read = async {
            while let Some(piece) = output.next().await {
                match piece? {
                    Printed::Stdout(bytes) => sink(&bytes)?,
                    Printed::Stderr(bytes) => {
                        said.extend_from_slice(&bytes);
                        let before = said.len().saturating_sub(SAID);
                        said.drain(..before);
                    }
                }
            }
            Ok::<_, BackupError>(())
        };
        let is_sent = tokio::select! {
            both = while_reading(feed, read) => both?,
            () = stopped(&mut stop) => return Err(BackupError::Interrupted),
        };
        let code = self.code(&id).await?;
        let said = self.mask.hide(String::from_utf8_lossy(&said).trim());
        match code {
            // A command that ended well has read all that it was to be sent.
            0 if !is_sent => Err(BackupError::Source(io::ErrorKind::BrokenPipe.into())),
            0 => Ok(()),
            126 | 127 => Err(self.no_tool(said.lines().next().unwrap_or("its shell is not found"))),
            code => Err(BackupError::Tool { container: self.container.clone(), code, said }),
        }
    }

    fn no_tool(&self, said: &str) -> BackupError {
        BackupError::NoTool { container: self.container.clone(), said: said.to_owned() }
    }

    async fn code(&self, exec: &str) -> Result<i64, BackupError> {
        let until = tokio::time::Instant::now() + ENDING;
        loop {
            if let Some(code) = self.engine.exec_code(exec).await? {
                return Ok(code);
            }
            if tokio::time::Instant::now() >= until {
                return Err(BackupError::Tool {
                    container: self.container.clone(),
                    code: -1,
                    said: "its output ended, and it runs on".to_owned(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends while it reads; the end of what is printed is the end. Whether all was sent by then.
async fn while_reading(
    sending: impl Future<Output = Result<bool, BackupError>>,
    reading: impl Future<Output = Result<(), BackupError>>,
) -> Result<bool, BackupError> {
    tokio::pin!(sending, reading);
    let mut is_sent = None;
    loop {
        tokio::select! {
            done = &mut reading => return done.map(|()| is_sent.unwrap_or(false)),
            sent = &mut sending, if is_sent.is_none() => is_sent = Some(sent?),
        }
    }
}
