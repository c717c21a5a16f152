//! git on a repository that lies in a lower.

use std::path::Path;

use crate::common::{Scratch, Subject};
use crate::long;

/// No configuration but this.
const ENVIRONMENT: &str = "export HOME=/nonexistent GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' \
                           GIT_CONFIG_KEY_1=gc.auto GIT_CONFIG_VALUE_1=0 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
                           GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@d";

#[test]
fn git_on_a_lower_repository() {
    let scratch = Scratch::new();
    let lower = scratch.lower(1);
    long(
        &lower,
        60,
        &format!(
            "{ENVIRONMENT}
             git init -q -b main repo && cd repo
             for n in $(seq 60); do
                 mkdir -p d$((n % 7))/e$((n % 3))
                 for f in $(seq 10); do echo \"$n $f\" >> d$((n % 7))/e$((n % 3))/f$f; done
                 head -c $((n * 1000)) /dev/zero | tr '\\0' \"$((n % 10))\" > big
                 git add -A && git commit -qm \"commit $n\"
                 git branch b$n
             done
             git tag -a v1 -m v1"
        ),
    );
    let mut mounted = Subject::lamel().mount(&scratch, 2, true, &[]);
    work(mounted.root());
    mounted.remount();
    check(mounted.root());
    mounted.unmount();
}

fn work(root: &Path) {
    long(
        root,
        200,
        &format!(
            "{ENVIRONMENT}
         (cd repo && test -z \"$(git status --porcelain)\" && git fsck --strict)
         git clone -q repo clone                      # by hard links to the lower's objects
         git clone -q --no-local repo copy
         for r in clone copy; do (cd $r; test -z \"$(git status --porcelain)\"; git fsck --strict); done
         cd repo
         git checkout -q b20 && git worktree add -q ../tree b40
         echo x >> d1/e1/f1 && git stash -q && git stash pop -q
         git commit -qam change && git checkout -q main
         git -c gc.reflogExpire=now gc -q --aggressive --prune=now
         git repack -adq && git pack-refs --all && git fsck --strict
         git merge -q -s ours -m merge b20 && git rebase -q -X theirs --onto b30 b50 b55
         git checkout -q main && git clean -xfdq && git reset -q --hard v1
         test -z \"$(git status --porcelain)\"
         mv .git/objects ../objects && mv ../objects .git/objects
         cd ../tree && git rm -rq d1 && git commit -qm removed && git mv d2 d9 && git commit -qm moved"
        ),
    );
}

fn check(root: &Path) {
    long(
        root,
        100,
        &format!(
            "{ENVIRONMENT}
         for r in repo clone copy tree; do (cd $r; git fsck --strict; git status --porcelain | {{ ! grep . >&2; }}); done
         cd repo && test $(git rev-list v1 | wc -l) = 60
         cd ../clone && git pull -q origin b55 --no-rebase -X theirs && git fsck --strict"
        ),
    );
}
