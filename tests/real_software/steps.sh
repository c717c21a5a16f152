# Run in a chroot into the tree: what package managers do to one.
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
apt="apt-get -qy -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/dev/null --no-install-recommends"
cd /debs
# New ones, with users, groups, diversions of /etc and triggers.
$apt install /debs/bc_*.deb /debs/file_*.deb /debs/libmagic*.deb /debs/libreadline8_*.deb /debs/readline-common_*.deb \
    /debs/sensible-utils_*.deb /debs/less_*.deb /debs/patch_*.deb /debs/cron*.deb
# The same again over files of the layers, the shell and dpkg's own tools among them.
dpkg -i ./dash_*.deb ./coreutils_*.deb ./tar_*.deb ./perl-base_*.deb
dpkg --audit
dpkg --verify dash coreutils tar bc file less patch
# Away again, with and without configuration.
$apt remove patch
$apt purge less
test ! -e /usr/bin/less && test ! -e /usr/bin/patch
echo '2 ^ 100' | bc | grep -x 1267650600228229401496703205376
file /bin/bash | grep -q ELF
useradd -m -s /bin/sh visitor
su visitor -c 'cd && umask 077 && mkdir a && echo secret > a/b && ln a/b c && chmod 644 a/b'
update-alternatives --query awk > /dev/null
ldconfig
# What users do to a tree.
mv /usr/share/zoneinfo /usr/share/zones
mv /usr/share/doc/bash /usr/share/doc/dash /srv
ln /usr/bin/perl /srv/perl-link
cp -a /etc /srv/etc && rm -rf /etc/cron.d
find /usr/share/locale -name '*.mo' -delete
chmod -R g+w /usr/share/common-licenses
chown -R visitor: /usr/share/perl5
tar -C /usr/lib -cf - dpkg | tar -C /srv -xf -
sed -i s/root/root/ /etc/group
rm -rf /usr/share/doc && mkdir /usr/share/doc && echo new > /usr/share/doc/new
# Passwords' age is today's date, and salts are random: none was set.
