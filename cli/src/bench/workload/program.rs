//! Workloads that are other programs.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::read::walk_root;
use super::{Ground, Part, Run, Stopped, Unit, Workload, row, skip};
use crate::bench::input::path;
use crate::bench::plan::{MANY, PYTHON};
use crate::bench::tree::{GIT, NEEDLE, PROGRAM, found, git};

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "ls",
        about: "ls -l of one large directory",
        caches: "ls-first: fresh mount; ls-warm: again",
        needs: &[Part::Many],
        ground: Ground::Given,
        writes: false,
        rows: &[row("ls-first", Unit::Seconds), row("ls-warm", Unit::Seconds)],
        run: ls,
    },
    Workload {
        name: "grep",
        about: "grep -r through the root filesystem",
        caches: "warm: the same was done before",
        needs: &[Part::Root],
        ground: Ground::Given,
        writes: false,
        rows: &[row("grep", Unit::Seconds)],
        run: grep,
    },
    Workload {
        name: "tar",
        about: "tar of the root filesystem into a pipe",
        caches: "warm: the same was done before",
        needs: &[Part::Root],
        ground: Ground::Given,
        writes: false,
        rows: &[row("tar", Unit::Seconds)],
        run: tar,
    },
    Workload {
        name: "untar",
        about: "unpack a tar of a part of the root filesystem, then rm -rf it",
        caches: "fresh mount and upper; the tar is in the page cache",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("untar", Unit::Seconds), row("rm", Unit::Seconds)],
        run: untar,
    },
    Workload {
        name: "spawn",
        about: "start a small program of a lower layer 100 times",
        caches: "warm: it was started before",
        needs: &[Part::Program],
        ground: Ground::Given,
        writes: false,
        rows: &[row("spawn", Unit::Each)],
        run: spawn,
    },
    Workload {
        name: "python",
        about: "python3 imports modules from a search path of ten directories",
        caches: "python-cold: page cache dropped (python3's own library too), fresh mount; python-warm: 5 times after it",
        needs: &[Part::Python],
        ground: Ground::Given,
        writes: false,
        rows: &[row("python-cold", Unit::Seconds), row("python-warm", Unit::Seconds)],
        run: python,
    },
    Workload {
        name: "git",
        about: "git status in a repository of a lower layer; git clone of it into the mount",
        caches: "git-status: git status was run before; git-clone: after it",
        needs: &[Part::Git],
        ground: Ground::Given,
        writes: true,
        rows: &[row("git-status", Unit::Seconds), row("git-clone", Unit::Seconds)],
        run: git_commands,
    },
    Workload {
        name: "dpkg",
        about: "dpkg unpacks four packages of 250 files each into a new root, with its fsyncs",
        caches: "fresh mount and upper; the packages are in the page cache",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("dpkg", Unit::Seconds)],
        run: dpkg,
    },
    Workload {
        name: "make",
        about: "make -j2 compiles and links 24 small C files",
        caches: "fresh mount and upper; the sources were just written, the compiler is in the page cache",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("make", Unit::Seconds)],
        run: make,
    },
    Workload {
        name: "sqlite",
        about: "sqlite3 commits 200 transactions, each with its fsyncs, to a new database",
        caches: "fresh mount and upper",
        needs: &[],
        ground: Ground::Given,
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

fn dpkg(run: &Run<'_>) -> Result<(), Stopped> {
    needs("dpkg")?;
    needs("dpkg-deb")?;
    let write = |path: std::path::PathBuf, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap_or(&path)).with_context(|| path.display().to_string())?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let mut packages = Vec::new();
    for package in 0..4 {
        let (name, tree) = (format!("bench{package}"), run.aside.join(format!("bench{package}")));
        let control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: lamel bench <bench@localhost>\n\
             Description: files to unpack\n"
        );
        write(tree.join("DEBIAN/control"), &control)?;
        for file in 0..250 {
            write(tree.join(format!("usr/share/{name}/{}/file{file}", file % 9)), &"a line of text\n".repeat(file))?;
        }
        let made = run.aside.join(format!("{name}.deb"));
        printed(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&made))?;
        packages.push(made);
    }
    let root = run.path.join("bench-root");
    for file in ["status", "available", "info/format", "updates/.keep", "triggers/.keep"] {
        write(root.join("var/lib/dpkg").join(file), if file == "info/format" { "1\n" } else { "" })?;
    }
    std::fs::remove_file(root.join("var/lib/dpkg/updates/.keep")).context("an empty directory")?;
    run.settle()?;
    let mut install = Command::new("dpkg");
    install.arg("--root").arg(&root).args(["--force-not-root", "--force-script-chrootless", "--force-bad-path"]);
    run.measure("dpkg", || printed(install.arg("--unpack").args(&packages)))?;
    if !root.join("usr/share/bench3/1/file1").is_file() {
        return Err(anyhow::anyhow!("dpkg did not unpack what it was given").into());
    }
    Ok(())
}

fn make(run: &Run<'_>) -> Result<(), Stopped> {
    needs("make")?;
    needs("cc")?;
    let base = run.path.join("bench-project");
    std::fs::create_dir(&base).context("making a directory")?;
    let mut sums = String::new();
    for number in 0..24 {
        let source = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
             int part{number}(int x) {{ char text[64]; snprintf(text, sizeof text, \"%d\", x); return atoi(text); }}\n"
        );
        std::fs::write(base.join(format!("part{number}.c")), source).context("a source")?;
        write!(sums, " + part{number}({number})").ok();
    }
    let declared: String = (0..24).map(|number| format!("int part{number}(int);\n")).collect();
    std::fs::write(base.join("main.c"), format!("{declared}int main(void) {{ return (0{sums}) != 276; }}\n"))
        .context("a source")?;
    let rules = "all: main\nmain: $(patsubst %.c,%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\n";
    std::fs::write(base.join("Makefile"), rules).context("the Makefile")?;
    run.settle()?;
    run.measure("make", || printed(Command::new("make").arg("-j2").arg("-C").arg(&base)))?;
    let status = Command::new(base.join("main")).stdin(Stdio::null()).status().context("starting what was built")?;
    if status.success() { Ok(()) } else { Err(anyhow::anyhow!("what was built does not work: {status}").into()) }
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
