#!/bin/sh
# Runs inside the emulated machine, in place of init, on its first boot: installs Debian's packages as its own installer does, then the users.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
set -eu
trap 'sync; echo o >/proc/sysrq-trigger; sleep 60' EXIT
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
ln -sf mawk /usr/bin/awk

cd /var/cache/apt/archives
echo "setup: unpacking at $(cut -d. -f1 /proc/uptime) s"
calmly="--force-all --force-unsafe-io --force-confnew"
dpkg $calmly --install base-passwd_*.deb base-files_*.deb dpkg_*.deb libc6_*.deb
dpkg $calmly --unpack ./*.deb
echo "setup: configuring at $(cut -d. -f1 /proc/uptime) s"
dpkg $calmly --configure --pending
rm -f ./*.deb /usr/sbin/policy-rc.d

echo "setup: users at $(cut -d. -f1 /proc/uptime) s"
depmod -a
for user in plain admin old; do
    useradd --create-home --shell /bin/bash "$user"
    mkdir -m 700 "/home/$user/.ssh"
    cp /setup/authorized_keys "/home/$user/.ssh/"
    chown -R "$user:$user" "/home/$user/.ssh"
done
mkdir -p -m 700 /root/.ssh
cp /setup/authorized_keys /root/.ssh/
echo "admin ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/admin
cp /setup/ssh_host_ed25519_key /setup/ssh_host_ed25519_key.pub /etc/ssh/
chown root:root /etc/ssh/ssh_host_*
chmod 600 /etc/ssh/ssh_host_ed25519_key
cp /setup/sshd.conf /etc/ssh/sshd_config.d/
cp /setup/80-wired.network /etc/systemd/network/
echo "nameserver 10.0.2.3" >/etc/resolv.conf
echo "/dev/vda / ext4 defaults 0 1" >/etc/fstab
echo booted >/etc/hostname
echo "127.0.0.1 localhost booted" >/etc/hosts
systemctl enable systemd-networkd ssh
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
mount -o remount,ro / 2>/dev/null || true
mount -o remount,rw /
dpkg --audit
rm -rf /setup
echo "setup: done at $(cut -d. -f1 /proc/uptime) s"
