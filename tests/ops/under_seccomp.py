"""Runs a command under the system calls that a container or a unit of systemd would leave it.

    under_seccomp.py ops/docker/seccomp.json -- pool-cli visit https://example.org
    under_seccomp.py ops/systemd/browser-pool.service -- pool-cli visit https://example.org

As root it becomes nobody first, as Chromium's sandbox wants. Needs Debian's python3-seccomp.
"""

import argparse
import ctypes
import json
import os
import pwd
import subprocess
import sys

import seccomp

COMPARE = {
    "SCMP_CMP_NE": seccomp.NE,
    "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}
PR_SET_NO_NEW_PRIVS = 38


def action_of(rule):
    if rule["action"] == "SCMP_ACT_ALLOW":
        return seccomp.ALLOW
    if rule["action"] == "SCMP_ACT_ERRNO":
        return seccomp.ERRNO(rule.get("errnoRet", 1))
    raise SystemExit(f"{rule['action']} is not understood here")


def argument(rule):
    values = [rule["value"]]
    if rule["op"] == "SCMP_CMP_MASKED_EQ":
        values.append(rule.get("valueTwo", 0))
    return seccomp.Arg(rule["index"], COMPARE[rule["op"]], *values)


def docker_filter(path, without):
    with open(path) as file:
        profile = json.load(file)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO", profile["defaultAction"]
    made = seccomp.SyscallFilter(seccomp.ERRNO(profile["defaultErrnoRet"]))
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            if name not in without:
                add(made, action_of(rule), name, *map(argument, rule.get("args", [])))
    return made


def systemd_groups():
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True
    ).stdout
    groups, group = {}, None
    for line in listed.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.split()[0], [])
        elif line.strip() and not line.strip().startswith("#"):
            group.append(line.strip())
    return groups


def systemd_filter(path, without):
    """`SystemCallFilter=` and the part of `RestrictNamespaces=` that is about making them."""
    groups = systemd_groups()
    settings = {}
    with open(path) as file:
        for line in file:
            name, is_setting, value = line.strip().partition("=")
            if is_setting and not name.startswith("#"):
                settings[name] = value.split()
    names = set()

    def add_all(entries):
        for entry in entries:
            add_all(groups[entry]) if entry.startswith("@") else names.add(entry)

    # systemd always allows @default.
    add_all(["@default", *settings["SystemCallFilter"]])
    flags = {
        "cgroup": 0x02000000,
        "ipc": 0x08000000,
        "mnt": 0x00020000,
        "net": 0x40000000,
        "pid": 0x20000000,
        "user": 0x10000000,
        "uts": 0x04000000,
    }
    shut = sum(flag for name, flag in flags.items() if name not in settings["RestrictNamespaces"])
    made = seccomp.SyscallFilter(seccomp.ERRNO(1))
    for name in sorted(names - set(without)):
        if name in ("clone", "unshare"):
            add(made, seccomp.ALLOW, name, seccomp.Arg(0, seccomp.MASKED_EQ, shut, 0))
        elif name == "clone3":
            add(made, seccomp.ERRNO(38), name)
        else:
            add(made, seccomp.ALLOW, name)
    return made


def add(made, action, name, *arguments):
    try:
        made.add_rule(action, name, *arguments)
    except (OSError, RuntimeError):
        # Not on this architecture.
        if seccomp.resolve_syscall(seccomp.Arch(), name) >= 0:
            raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("--without", nargs="*", default=[], help="system calls to forbid all the same")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    make = docker_filter if arguments.profile.endswith(".json") else systemd_filter
    made = make(arguments.profile, arguments.without)
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setresgid(*[nobody.pw_gid] * 3)
        os.setresuid(*[nobody.pw_uid] * 3)
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SystemExit("no_new_privs could not be set")
    made.load()
    os.execvp(arguments.command[0], arguments.command)


if __name__ == "__main__":
    sys.exit(main())
