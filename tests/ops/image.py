"""Runs the steps of a Dockerfile where there is no Docker, and tells which of them it could not.

    image.py ops/docker/Dockerfile ops/docker/seccomp.json --profile release

The first stage is built from the files that .dockerignore leaves, with the toolchain of this machine. The second one is run
in a system made by debootstrap, which becomes the root of the pool as in a container: as the image's user, in namespaces of
its own, under the seccomp profile. Needs root, and Debian's debootstrap and python3-seccomp.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import pwd
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile

import seccomp
from pools import TOKEN, Lease, ask, logs, until
from under_seccomp import PR_SET_NO_NEW_PRIVS, docker_filter

REPOSITORY = pathlib.Path(__file__).parents[2]
SOURCES = """\
deb http://deb.debian.org/debian {suite} main
deb http://deb.debian.org/debian {suite}-updates main
deb http://deb.debian.org/debian-security {suite}-security main
"""
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
not_done = []


def stages(dockerfile):
    """The stages of a Dockerfile: the image that each is from, its name, and its instructions."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            words = value.split()
            found.append({"image": words[0], "name": words[-1], "steps": []})
        else:
            found[-1]["steps"].append((name, value.strip()))
    return found


def without_flags(value):
    """A step's value, and its flags."""
    words = value.split(" ")
    flags = []
    while words and (words[0].startswith("--") or not words[0]):
        flags.append(words.pop(0))
    return " ".join(words), [flag for flag in flags if flag]


def build(stage, scratch, profile):
    """Runs the first stage on this machine; what it installs below / is then below the directory that is returned."""
    not_done.append(f"the image {stage['image']}: the toolchain of this machine was taken for its")
    context, out = scratch / "context", scratch / "built"
    context.mkdir()
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    subprocess.run(["cp", "-r", "--parents", "-t", context, *kept], cwd=REPOSITORY, check=True)
    target = "debug" if profile == "dev" else profile
    for step, value in stage["steps"]:
        if step in ("WORKDIR", "COPY"):
            continue
        assert step == "RUN", f"{step} is not understood here"
        command, flags = without_flags(value)
        not_done.extend(f"RUN {flag}: a cache of the builder" for flag in flags)
        command = command.replace("--release", f"--profile {profile}").replace("target/release", f"target/{target}")
        command = command.replace(" /out/", f" {out}/out/")
        (context / "target").symlink_to(REPOSITORY / "target")
        print(f"-- in the context: {command}", flush=True)
        subprocess.run(["sh", "-ec", command], cwd=context, check=True)
    return out


def base(image, root):
    """Fills a directory with the system that an image of Debian has."""
    name, _, tag = image.partition(":")
    assert name == "debian", f"{image} is no image of Debian"
    suite = tag.removesuffix("-slim")
    not_done.append(f"the image {image}: debootstrap's minimal {suite} was taken for it")
    subprocess.run(["debootstrap", "--variant=minbase", suite, root], check=True, stdout=subprocess.DEVNULL)
    (root / "etc/apt/sources.list").write_text(SOURCES.format(suite=suite))
    # A mirror, a proxy or a clock that apt has to live with on this machine.
    settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    (root / "etc/apt/apt.conf.d/90machine").write_text(settings)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def run_as_root(root, command, variables):
    """A RUN step: with a /proc and a /dev, which are gone afterwards."""
    print(f"-- in the image: {command}", flush=True)
    inside = (
        'mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && root=$1 && shift '
        '&& exec chroot "$root" env -i DEBIAN_FRONTEND=noninteractive "$@"'
    )
    settings = [f"{name}={value}" for name, value in variables.items()]
    arguments = ["sh", "-c", inside, "sh", str(root), *settings, "/bin/sh", "-ec", command]
    with open(root.parent / "run.txt", "w") as log:
        subprocess.run(["unshare", "--mount", "--pid", "--fork", *arguments], check=True, stdout=log, stderr=log)


def assemble(stage, root, built):
    """Runs the second stage; returns what a container of it is started with."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    image = {"env": {"PATH": path}, "user": "0:0", "directory": "/"}
    arguments = {}
    for step, value in stage["steps"]:
        value, flags = without_flags(value)
        if step == "ARG":
            name, _, default = value.partition("=")
            arguments[name] = shlex.split(default)[0]
        elif step == "RUN":
            run_as_root(root, value, image["env"] | arguments)
        elif step == "COPY":
            source, target = value.split()
            assert flags and flags[0].startswith("--from="), f"COPY {value} is not understood here"
            shutil.copy(built / source.lstrip("/"), root / target.lstrip("/"))
        elif step == "ENV":
            image["env"].update(word.split("=", 1) for word in shlex.split(value))
        elif step == "USER":
            image["user"] = value
        elif step == "WORKDIR":
            image["directory"] = value
        elif step in ("ENTRYPOINT", "CMD"):
            image[step.lower()] = json.loads(value)
        elif step == "HEALTHCHECK":
            image["health"] = json.loads(value.partition("CMD ")[2])
        elif step in ("VOLUME", "EXPOSE"):
            not_done.append(f"{step} {value}: nothing but a container has these")
        else:
            raise SystemExit(f"{step} is not understood here")
    return image


def inside(spec):
    """Becomes a command in the image: called in new namespaces, as root."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name, *arguments):
        if getattr(libc, name)(*arguments) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{name}{arguments}: {os.strerror(error)}")

    def mount(source, target, kind=None, flags=0, data=None):
        words = [None if word is None else str(word).encode() for word in (source, target, kind)]
        call("mount", *words, ctypes.c_ulong(flags), None if data is None else data.encode())

    root = pathlib.Path(spec["root"])
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND)
    mount("tmpfs", root / "dev", "tmpfs", 0, "mode=755")
    for name in ("null", "zero", "full", "random", "urandom"):
        (root / "dev" / name).touch()
        mount(f"/dev/{name}", root / "dev" / name, None, MS_BIND)
    (root / "dev/shm").mkdir()
    mount("tmpfs", root / "dev/shm", "tmpfs", 0, "mode=1777,size=1g")
    mount("proc", root / "proc", "proc")
    mount("/sys", root / "sys", None, MS_BIND | MS_REC)
    mount(None, root / "sys", None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    made = docker_filter(spec["profile"], spec["without"])
    # Not chroot: in one, nobody may make the namespaces that Chromium's sandbox needs.
    os.chdir(root)
    call("syscall", ctypes.c_long(seccomp.resolve_syscall(seccomp.Arch(), "pivot_root")), b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir(spec["directory"])
    user, group = map(int, spec["user"].split(":"))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    made.load()
    os.execvpe(spec["command"][0], spec["command"], spec["env"])


def start(image, root, profile, command, log, without=(), **variables):
    """Starts a command in the image, as process 1 of namespaces of its own."""
    spec = {
        "root": str(root),
        "profile": str(profile.resolve()),
        "without": list(without),
        "command": command,
        "env": image["env"] | {"HOME": image["home"]} | variables,
        "user": image["user"],
        "directory": image["directory"],
    }
    arguments = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    arguments += [sys.executable, __file__, "--inside", json.dumps(spec)]
    return subprocess.Popen(arguments, stdout=log, stderr=log)


def own_network():
    """Leaves this process, and all that it starts, a network with nothing but loopback: all ports are free there."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def serves(image, root, profile, scratch):
    """A pool in the image is ready, leases a browser in its sandbox, finds itself well, and ends when it is told to."""
    port = int(image["env"]["POOL__GATEWAY__LISTEN"].rpartition(":")[2])
    variables = {"POOL_TOKEN": TOKEN}
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs(scratch))
        log = stack.enter_context(open(scratch / "pool.log", "w"))
        pool = start(image, root, profile, image["entrypoint"] + image["cmd"], log, **variables)
        stack.callback(pool.wait)
        stack.callback(pool.kill)

        def is_ready():
            assert pool.poll() is None, "the pool has ended"
            try:
                return ask(port, "/readyz")[0] == 200
            except OSError:
                return False

        until("the pool is ready", is_ready)
        lease = Lease(port, "/")
        product = lease.browser()
        assert "Chrome" in product, product
        health = start(image, root, profile, image["health"], log, **variables)
        assert health.wait(20) == 0, "the health check of the image failed"
        lease.close()
        # Process 1 of the image: unshare passes no signal on.
        children = pathlib.Path(f"/proc/{pool.pid}/task/{pool.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert pool.wait(60) == 0, "the pool did not end well"
    with open(scratch / "without.log", "w") as log:
        page = ["pool-cli", "visit", "--set", "chrome.sandbox=on", "data:text/html,<title>ok</title>"]
        seen = start(image, root, profile, page, log, **variables).wait(120)
        assert seen == 0, (scratch / "without.log").read_text()
        bare = start(image, root, profile, page, log, without=["chroot"], **variables).wait(120)
        assert bare != 0, "a page opens without the system calls of the sandbox: is the profile in force?"
    return product


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dockerfile", type=pathlib.Path)
    parser.add_argument("seccomp", type=pathlib.Path)
    parser.add_argument("--profile", default="release", help="Cargo's profile for the build")
    parser.add_argument("--built", type=pathlib.Path, help="a pool-cli that was built already, to leave the first stage out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bp-image-") as folder:
        scratch = pathlib.Path(folder)
        scratch.chmod(0o755)
        first, second = stages(options.dockerfile)
        if options.built:
            not_done.append(f"the stage {first['name']}: {options.built} was taken for what it builds")
            built = scratch / "built"
            (built / "out").mkdir(parents=True)
            shutil.copy(options.built, built / "out/pool-cli")
        else:
            built = build(first, scratch, options.profile)
        root = scratch / "root"
        base(second["image"], root)
        try:
            image = assemble(second, root, built)
        except subprocess.CalledProcessError:
            print((scratch / "run.txt").read_text()[-4000:], file=sys.stderr)
            raise
        user = int(image["user"].split(":")[0])
        with open(root / "etc/passwd") as users:
            entries = [line.strip().split(":") for line in users]
        image["home"] = next(entry[5] for entry in entries if int(entry[2]) == user)
        assert user != 0, "the image runs as root"
        assert all(int(entry.pw_uid) != user for entry in pwd.getpwall()), f"{user} is a user of this machine too"
        own_network()
        product = serves(image, root, options.seccomp, scratch)
        print(f"every step ran; as {image['user']}, under {options.seccomp.name} and in its sandbox, {product} was leased")
    not_done.append("the masked files of /proc, the capabilities and the ports of a container")
    not_done.append("the image for the other machine (arm64), and its layers as such")
    for what in not_done:
        print(f"not done here: {what}")


if sys.argv[1:2] == ["--inside"]:
    inside(json.loads(sys.argv[2]))
main()
