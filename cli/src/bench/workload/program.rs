//! Workloads that are other programs.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::read::walk_root;
use super::{Part, Run, Stopped, Unit, Workload, row, skip};
use crate::bench::input::path;
use crate::bench::plan::{MANY, PYTHON};
use crate::bench::tree::{GIT, NEEDLE, PROGRAM, found, git};

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "ls",
        about: "ls -l of one large directory",
        caches: "ls-first: fresh mount; ls-warm: again",
        needs: &[Part::Many],
        writes: false,
        rows: &[row("ls-first", Unit::Seconds), row("ls-warm", Unit::Seconds)],
        run: ls,
    },
    Workload {
        name: "grep",
        about: "grep -r through the root filesystem",
        caches: "warm: the same was done before",
        needs: &[Part::Root],
        writes: false,
        rows: &[row("grep", Unit::Seconds)],
        run: grep,
    },
    Workload {
        name: "tar",
        about: "tar of the root filesystem into a pipe",
        caches: "warm: the same was done before",
        needs: &[Part::Root],
        writes: false,
        rows: &[row("tar", Unit::Seconds)],
        run: tar,
    },
    Workload {
        name: "untar",
        about: "unpack a tar of a part of the root filesystem, then rm -rf it",
        caches: "fresh mount and upper; the tar is in the page cache",
        needs: &[],
        writes: true,
        rows: &[row("untar", Unit::Seconds), row("rm", Unit::Seconds)],
        run: untar,
    },
    Workload {
        name: "spawn",
        about: "start a small program of a lower layer 100 times",
        caches: "warm: it was started before",
        needs: &[Part::Program],
        writes: false,
        rows: &[row("spawn", Unit::Each)],
        run: spawn,
    },
    Workload {
        name: "python",
        about: "python3 imports modules from a search path of ten directories",
        caches: "python-cold: page cache dropped (python3's own library too), fresh mount; python-warm: 5 times after it",
        needs: &[Part::Python],
        writes: false,
        rows: &[row("python-cold", Unit::Seconds), row("python-warm", Unit::Seconds)],
        run: python,
    },
    Workload {
        name: "git",
        about: "git status in a repository of a lower layer; git clone of it into the mount",
        caches: "git-status: git status was run before; git-clone: after it",
        needs: &[Part::Git],
        writes: true,
        rows: &[row("git-status", Unit::Seconds), row("git-clone", Unit::Seconds)],
        run: git_commands,
    },
    Workload {
        name: "sqlite",
        about: "sqlite3 commits 200 transactions, each with its fsyncs, to a new database",
        caches: "fresh mount and upper",
        needs: &[],
        writes: true,
        rows: &[row("sqlite", Unit::Seconds)],
        run: sqlite,
    },
];

/// Runs a program that must succeed; returns how many bytes it printed.
fn printed(command: &mut Command) -> Result<u64> {
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let mut bytes = 0;
    if let Some(mut out) = child.stdout.take() {
        let mut block = vec![0; 1 << 16];
        loop {
            match out.read(&mut block).context("a program's output")? {
                0 => break,
                length => bytes += length as u64,
            }
        }
    }
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut said).ok();
    }
    let status = child.wait().context("waiting for a program")?;
    if !status.success() {
        bail!("{command:?}: {status}: {}", said.lines().next().unwrap_or("no message"));
    }
    Ok(bytes)
}

fn needs(program: &str) -> Result<(), Stopped> {
    if found(program) { Ok(()) } else { skip(format!("{program} is not installed")) }
}

fn ls(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Many)?;
    needs("ls")?;
    let list = || {
        let bytes = printed(Command::new("ls").arg("-l").arg(run.path.join(MANY)))?;
        if bytes < run.input.shape.many as u64 * 20 {
            bail!("ls -l printed {bytes} bytes alone");
        }
        Ok(())
    };
    run.measure("ls-first", list)?;
    run.measure("ls-warm", list)?;
    Ok(())
}

fn grep(run: &Run<'_>) -> Result<(), Stopped> {
    needs("grep")?;
    let subject = run.path.join(path(&run.input.subject));
    let search = || {
        // Nothing found is exit code 1, and correct in a tree of the user's.
        let mut command = Command::new("grep");
        command.args(["-r", "-s", "-e", NEEDLE]).arg(&subject);
        if run.input.foreign {
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("grep")?;
            return if status.code() == Some(2) { bail!("grep: {status}") } else { Ok(0) };
        }
        printed(&mut command)
    };
    search()?;
    run.measure("grep", search)?;
    Ok(())
}

fn tar(run: &Run<'_>) -> Result<(), Stopped> {
    needs("tar")?;
    walk_root(run)?;
    let pack =
        || printed(Command::new("tar").arg("-C").arg(&run.path).arg("-cf").arg("-").arg(path(&run.input.subject)));
    pack()?;
    run.measure("tar", pack)?;
    Ok(())
}

fn untar(run: &Run<'_>) -> Result<(), Stopped> {
    needs("tar")?;
    if !run.input.archive.is_file() {
        return skip("only with the generated tree, and if tar was there when it was made");
    }
    std::fs::read(&run.input.archive).context("the archive")?;
    let target = run.path.join("bench-unpacked");
    std::fs::create_dir(&target).context("making a directory")?;
    run.settle()?;
    run.measure("untar", || printed(Command::new("tar").arg("-C").arg(&target).arg("-xf").arg(&run.input.archive)))?;
    run.settle()?;
    run.measure("rm", || printed(Command::new("rm").arg("-rf").arg(&target)))?;
    Ok(())
}

fn spawn(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Program)?;
    let program = run.path.join(PROGRAM);
    let start = |times: u64| {
        for _ in 0..times {
            let status = Command::new(&program).stdin(Stdio::null()).status().context("starting the program")?;
            if !status.success() {
                bail!("{}: {status}", program.display());
            }
        }
        Ok(())
    };
    start(3)?;
    run.measure_each("spawn", Some(100), || start(100))?;
    Ok(())
}

fn python(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Python)?;
    needs("python3")?;
    let base = run.path.join(PYTHON);
    let program = format!(
        "import sys\nsys.path[:0] = [sys.argv[1] + '/' + str(i) for i in range(10)]\n\
         for i in range({}): __import__(f'module{{i}}')",
        run.input.shape.modules
    );
    // -B: compiled modules are not kept, which would be another workload.
    let import = || printed(Command::new("python3").args(["-I", "-B", "-c", &program]).arg(&base));
    run.cool();
    run.measure("python-cold", import)?;
    run.measure("python-warm", || (0..5).try_for_each(|_| import().map(drop)))?;
    Ok(())
}

fn git_commands(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Git)?;
    needs("git")?;
    let repository = run.path.join(GIT);
    let status = || {
        let bytes = printed(git(&repository).args(["status", "--porcelain"]))?;
        if bytes > 0 { bail!("git status sees changes where there are none") } else { Ok(()) }
    };
    status()?;
    run.measure("git-status", status)?;
    let clone = run.path.join("bench-clone");
    run.settle()?;
    run.measure("git-clone", || {
        printed(git(&run.path).args(["clone", "-q", "--no-local"]).arg(&repository).arg(&clone))
    })?;
    Ok(())
}

fn sqlite(run: &Run<'_>) -> Result<(), Stopped> {
    needs("sqlite3")?;
    let mut script = String::from("create table t(id integer primary key, body text);\n");
    for number in 0..200 {
        // Each statement is a transaction.
        writeln!(script, "insert into t values({number}, 'a row of some length, number {number}');").ok();
    }
    script.push_str("select count(*) from t;\n");
    let path = run.aside.join("script.sql");
    std::fs::write(&path, script).context("the script")?;
    let read = format!(".read {}", path.display());
    run.settle()?;
    let bytes = run.measure("sqlite", || printed(Command::new("sqlite3").arg(run.path.join("bench.db")).arg(&read)))?;
    if bytes != 4 {
        return Err(anyhow::anyhow!("sqlite3 does not count 200 rows").into());
    }
    Ok(())
}
