//! `cargo xtask openapi`: the OpenAPI document held against its specification, and clients that others generate from it.
//!
//! The document is for other languages, so their tools judge it: a validator, a generator for Python and one for TypeScript.
//! A script for each language in `tests/openapi/` then creates, claims and completes tasks with the generated client.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::layout::{self, Scratch};
use crate::mongod::{Database, Purpose};
use crate::process;
use crate::server::{self, Server, Settings};
use crate::spinner::Spinner;
use crate::venv::Package;

/// The Python tools share an environment.
const PYTHON_TOOLS: [Package; 2] = [
    Package { name: "openapi-spec-validator", version: "0.9.0", folder: "openapi-venv" },
    Package { name: "openapi-python-client", version: "0.29.1", folder: "openapi-venv" },
];

/// Where the scripts are, and which versions the npm packages have.
const SCRIPTS: &str = "tests/openapi";

/// How long the server may take to end; all its callers are gone by then.
const STOP_GRACE: Duration = Duration::from_secs(10);

const KEY: &str = "openapi_api_key";

/// Where the tools are.
pub(crate) struct Tools {
    /// The programs of the Python environment.
    python: PathBuf,
    /// The programs of the npm packages, in the `node_modules` that TypeScript must find them in.
    npm: PathBuf,
}

/// The command by itself.
pub(crate) async fn run_with_tools() -> Result<()> {
    run(&tools().await?).await
}

/// Starts database and server, checks the document and the clients, stops both.
pub(crate) async fn run(tools: &Tools) -> Result<()> {
    let program = server::build(false).await?;
    let database = Database::throw_away(Purpose::Tests).await?;
    let outcome = against(tools, &program, database.uri()).await;
    database.stop().await?;
    outcome
}

/// Fetches the tools unless they are there. An error says which one is not to be had.
pub(crate) async fn tools() -> Result<Tools> {
    let mut folder = PathBuf::new();
    for package in &PYTHON_TOOLS {
        folder = package.install().await?;
    }
    Ok(Tools { python: folder.join("bin"), npm: npm_packages().await? })
}

/// Installs what `tests/openapi/package.json` names, unless the same was installed before.
async fn npm_packages() -> Result<PathBuf> {
    let folder = layout::data().join("openapi-npm");
    let wanted = fs::read(layout::root().join(SCRIPTS).join("package.json"))?;
    // Written last, so an installation that was cut short is done again.
    let done = folder.join("installed.json");
    if fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    process::output(Command::new("node").arg("--version")).await.context("Node.js is needed")?;
    let spinner = Spinner::new("fetching openapi-typescript");
    layout::make_folder(&folder)?;
    fs::write(folder.join("package.json"), &wanted)?;
    let words = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"];
    let install = process::output(Command::new("npm").args(words).current_dir(&folder)).await;
    install.context("the npm packages could not be installed")?;
    fs::write(&done, &wanted)?;
    spinner.done();
    Ok(folder)
}

async fn against(tools: &Tools, program: &Path, uri: &str) -> Result<()> {
    let scratch = Scratch::new()?;
    let folder = scratch.path();
    let name = format!("openapi_{}", std::process::id());
    let settings = Settings { mongodb_uri: uri, mongodb_database: Some(&name), api_key: KEY };
    let log = folder.join("server.log");
    let mut server = Server::start(program, &settings, layout::free_port()?, &log)?;
    server.ready().await?;
    let document = folder.join("openapi.json");
    fs::write(&document, server.get("/openapi.json").await?)?;
    validate(tools, &document).await?;
    python_client(tools, &document, &server.address(), folder).await.context("the Python client")?;
    typescript_client(tools, &document, &server.address()).await.context("the TypeScript client")?;
    server.check_alive()?;
    server.stop(STOP_GRACE).await
}

async fn validate(tools: &Tools, document: &Path) -> Result<()> {
    let validator = tools.python.join("python");
    let words = ["-m", "openapi_spec_validator", "--schema", "3.1", "--validation-errors", "all"];
    process::run(Command::new(validator).args(words).arg(document)).await
}

async fn python_client(tools: &Tools, document: &Path, url: &str, folder: &Path) -> Result<()> {
    let config = folder.join("config.yaml");
    // Nobody reads the made code, so that it need not be formatted.
    fs::write(&config, "post_hooks: []\n")?;
    let made = folder.join("python");
    layout::make_folder(&made)?;
    let mut generate = Command::new(tools.python.join("python"));
    generate.args(["-m", "openapi_python_client", "generate", "--meta", "none", "--overwrite"]);
    generate.arg("--path").arg(document).arg("--config").arg(&config);
    generate.arg("--output-path").arg(made.join("task_service"));
    process::output(&mut generate).await?;
    let script = layout::root().join(SCRIPTS).join("python_client.py");
    process::run(Command::new(tools.python.join("python")).arg(script).arg(&made).args([url, KEY])).await
}

/// In the folder of its packages, because TypeScript looks for them from there.
async fn typescript_client(tools: &Tools, document: &Path, url: &str) -> Result<()> {
    let script = "typescript_client";
    let source = tools.npm.join(script).with_extension("ts");
    fs::copy(layout::root().join(SCRIPTS).join(script).with_extension("ts"), &source)?;
    let programs = tools.npm.join("node_modules/.bin");
    let mut generate = Command::new(programs.join("openapi-typescript"));
    process::output(generate.arg(document).arg("--output").arg(tools.npm.join("schema.d.ts"))).await?;
    let mut compile = Command::new(programs.join("tsc"));
    compile.current_dir(&tools.npm);
    compile.args(["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]);
    process::run(compile.arg(&source)).await?;
    process::run(Command::new("node").arg(source.with_extension("js")).args([url, KEY])).await
}

/// Whether a check whose tool is not to be had may be left out. Where `CI` is set nobody would see that it was.
pub(crate) fn may_be_left_out() -> bool {
    env::var_os("CI").is_none()
}
