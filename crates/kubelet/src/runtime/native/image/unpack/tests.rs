//! Archives that are as they should be, and hostile ones.

use super::*;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use tar::{Builder, Header};
use tempfile::TempDir;

/// One entry: name, kind, link target or content, mode.
type Line<'a> = (&'a str, EntryType, &'a str, u32);

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const SYMLINK: EntryType = EntryType::Symlink;
const LINK: EntryType = EntryType::Link;

/// Raw names, which the builder's own functions would refuse.
fn header(line: &Line<'_>) -> Header {
    let (name, kind, content, mode) = *line;
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_000_000_000);
    header.set_size(if kind == FILE { content.len() as u64 } else { 0 });
    if kind == EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    if matches!(kind, SYMLINK | LINK) {
        header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
    }
    header.set_cksum();
    header
}

fn archive(lines: &[Line<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for line in lines {
        let content = if line.1 == FILE { line.2.as_bytes() } else { b"" };
        builder.append(&header(line), content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(archive: &[u8]) -> (TempDir, Result<Unpacked, ImageError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    let result = unpack(archive, &dir.path().join("root"), LIMITS);
    (dir, result)
}

/// The names directly in the directory that the root is in.
fn outside(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap().flatten();
    names.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    // As getfattr would print it.
    let mut value = [0_u8; 8];
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let read = get_xattr(&path, c"trusted.overlay.opaque", &mut value);
    read == Some(1) && value[0] == b'y'
}

fn get_xattr(path: &CString, name: &std::ffi::CStr, value: &mut [u8]) -> Option<usize> {
    sys::get_xattr(path, name, value).ok()
}

#[test]
fn files_links_owners_modes_and_times_are_as_archived() {
    let bytes = archive(&[
        ("./", DIR, "", 0o711),
        ("a/", DIR, "", 0o1777),
        ("a/tool", FILE, "#!", 0o4755),
        ("a/again", LINK, "a/tool", 0o644),
        ("a/short", SYMLINK, "tool", 0o777),
        ("/abs", FILE, "in the root", 0o600),
        ("deep/er/file", FILE, "x", 0o644),
        ("pipe", EntryType::Fifo, "", 0o640),
        ("null", EntryType::Char, "", 0o666),
        ("a/tool2", FILE, "first", 0o644),
        ("a/tool2", FILE, "the last one counts", 0o644),
    ]);
    let (dir, result) = unpacked(&bytes);
    let root = dir.path().join("root");
    assert_eq!(result.unwrap(), Unpacked { bytes: 38, hides_all: false });
    let of = |name: &str| {
        let m = fs::symlink_metadata(root.join(name)).unwrap();
        (m.mode() & 0o7777, m.uid(), m.gid(), m.mtime())
    };
    let time = 1_000_000_000;
    for (name, mode) in
        [("", 0o711), ("a", 0o1777), ("a/tool", 0o4755), ("abs", 0o600), ("pipe", 0o640)]
    {
        assert_eq!(of(name), (mode, 7, 8, time), "{name}");
    }
    assert_eq!(of("deep/er").0, 0o755, "a directory that the archive does not say");
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("a/tool"), inode("a/again"));
    assert_eq!(fs::read_link(root.join("a/short")).unwrap(), Path::new("tool"));
    assert_eq!(fs::read_to_string(root.join("abs")).unwrap(), "in the root");
    assert_eq!(fs::read_to_string(root.join("a/tool2")).unwrap(), "the last one counts");
    let null = fs::metadata(root.join("null")).unwrap();
    assert_eq!((null.mode(), null.rdev()), (0o20666, makedev(1, 3)));
    assert_eq!(outside(&dir), ["root"]);
}

#[test]
fn whiteouts_are_what_an_overlay_understands() {
    // OCI image layer specification, "Whiteouts"; overlayfs: 0/0 devices and trusted.overlay.opaque.
    let bytes = archive(&[
        ("etc/.wh.gone", FILE, "", 0),
        ("opt/.wh..wh..opq", FILE, "", 0),
        ("opt/new", FILE, "x", 0o644),
        ("x/.wh..wh.plnk", FILE, "", 0),
        // This layer's own are never hidden by it, in either order.
        ("own", FILE, "x", 0o644),
        (".wh.own", FILE, "", 0),
        (".wh.late", FILE, "", 0),
        ("late", FILE, "x", 0o644),
        ("dir/file", FILE, "x", 0o644),
        (".wh.dir", FILE, "", 0),
        (".wh.replaced", FILE, "", 0),
        ("replaced/file", FILE, "x", 0o644),
        (".wh.stated", FILE, "", 0),
        ("stated/", DIR, "", 0o700),
    ]);
    let (dir, result) = unpacked(&bytes);
    let root = dir.path().join("root");
    assert!(!result.unwrap().hides_all);
    assert!(is_whiteout(&root.join("etc/gone")));
    for name in ["opt", "dir", "replaced", "stated"] {
        assert!(is_opaque(&root.join(name)), "{name}");
    }
    assert!(!is_opaque(&root.join("etc")));
    for name in ["opt/new", "own", "late", "dir/file", "replaced/file"] {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "x", "{name}");
    }
    assert_eq!(fs::read_dir(root.join("x")).unwrap().count(), 0);
    let (_dir, result) = unpacked(&archive(&[(".wh..wh..opq", FILE, "", 0)]));
    assert!(result.unwrap().hides_all);
}

#[test]
fn nothing_is_written_outside_of_the_root() {
    for (lines, why) in [
        (&[("../evil", FILE, "x", 0o644)][..], "leads out"),
        (&[("a/../../evil", FILE, "x", 0o644)], "leads out"),
        (&[("evil", LINK, "../../etc/passwd", 0o644)], "leads out"),
        (&[("evil", LINK, "/etc/passwd", 0o644)], "hard link to etc/passwd"),
        (&[(".wh...", FILE, "", 0)], "hides nothing"),
        (&[("d/.wh..", FILE, "", 0)], "hides nothing"),
        (&[("a", FILE, "x", 0o644), ("a/b", FILE, "x", 0o644)], "open its directory a"),
        (&[("dangling", SYMLINK, "nowhere", 0), ("dangling/x", FILE, "x", 0)], "its directory"),
    ] {
        let (dir, result) = unpacked(&archive(lines));
        let error = result.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("entry"), "{lines:?}: {error}");
        assert_eq!(outside(&dir), ["root"], "{lines:?}");
    }
}

#[test]
fn a_link_of_the_archive_is_followed_within_the_root_only() {
    for target in ["/", "..", "../../../..", "/proc/self/root", "sub/../.."] {
        let bytes = archive(&[
            ("sub/", DIR, "", 0o755),
            ("proc/self/root/", DIR, "", 0o755),
            ("out", SYMLINK, target, 0o777),
            ("out/evil", FILE, "x", 0o644),
            ("out/tmp/evil", FILE, "x", 0o644),
            ("out/.wh.hidden", FILE, "", 0),
            ("out/linked", LINK, "out/evil", 0),
        ]);
        let (dir, result) = unpacked(&bytes);
        result.unwrap();
        assert_eq!(outside(&dir), ["root"], "{target}");
        let root = dir.path().join("root");
        let inside = if target.starts_with("/proc") { root.join("proc/self/root") } else { root };
        assert_eq!(fs::read_to_string(inside.join("evil")).unwrap(), "x", "{target}");
        assert!(is_whiteout(&inside.join("hidden")), "{target}");
    }
    assert!(!Path::new("/evil").exists() && !Path::new("/tmp/evil").exists());
}

#[test]
fn a_link_is_replaced_and_never_written_through() {
    let victim = tempfile::tempdir().unwrap();
    let kept = victim.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    let target = kept.to_str().unwrap();
    let dir_target = victim.path().to_str().unwrap();
    let bytes = archive(&[
        ("file", SYMLINK, target, 0o777),
        ("file", FILE, "overwritten", 0o4777),
        ("dir", SYMLINK, dir_target, 0o777),
        ("dir/", DIR, "", 0o700),
        ("dir/kept", FILE, "overwritten", 0o644),
        ("tree", SYMLINK, dir_target, 0o777),
        ("full/inner", SYMLINK, dir_target, 0o777),
        ("full", FILE, "a file instead of a directory", 0o644),
    ]);
    let (dir, result) = unpacked(&bytes);
    result.unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
    assert_ne!(fs::metadata(&kept).unwrap().uid(), 7);
    let root = dir.path().join("root");
    assert_eq!(fs::read_to_string(root.join("dir/kept")).unwrap(), "overwritten");
    assert!(fs::metadata(root.join("full")).unwrap().is_file());
}

#[test]
fn what_would_speak_to_the_overlay_is_left_out() {
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.trusted.overlay.redirect", &b"/../../etc"[..]),
            ("SCHILY.xattr.trusted.overlay.metacopy", b""),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.note", b"kept"),
        ])
        .unwrap();
    builder.append(&header(&("f", FILE, "x", 0o644)), &b"x"[..]).unwrap();
    let (dir, result) = unpacked(&builder.into_inner().unwrap());
    result.unwrap();
    let path = dir.path().join("root/f");
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut value = [0; 16];
    assert_eq!(get_xattr(&path, c"trusted.overlay.redirect", &mut value), None);
    assert_eq!(get_xattr(&path, c"user.overlay.opaque", &mut value), None);
    assert_eq!(get_xattr(&path, c"user.note", &mut value), Some(4));
    assert_eq!(&value[..4], b"kept");
}

#[test]
fn sizes_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1000, entries: 3 };
    let large = "x".repeat(1001);
    let half = "x".repeat(600);
    let try_it = |bytes: &[u8]| unpack(bytes, dir.path(), limits).unwrap_err().to_string();
    assert!(try_it(&archive(&[("f", FILE, &large, 0)])).contains("too large"));
    let two = archive(&[("f", FILE, &half, 0), ("g", FILE, &half, 0)]);
    assert!(try_it(&two).contains("too large"));
    let many = archive(&[("a/", DIR, "", 0); 4]);
    assert!(try_it(&many).contains("more than 3"));
    // A name of two million bytes, and a header that says so of its file.
    let mut builder = Builder::new(Vec::new());
    let mut long = Header::new_gnu();
    long.set_entry_type(EntryType::GNULongName);
    long.set_size(2 << 20);
    long.set_cksum();
    builder.append(&long, vec![b'a'; 2 << 20].as_slice()).unwrap();
    builder.append(&header(&("f", FILE, "x", 0)), &b"x"[..]).unwrap();
    assert!(try_it(&builder.into_inner().unwrap()).contains("more bytes than"));
    // A sparse file that pretends to be an exbibyte of zeros.
    let mut sparse = header(&("s", EntryType::GNUSparse, "", 0));
    sparse.as_gnu_mut().unwrap().set_real_size(1 << 60);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(1 << 60);
    gnu.sparse[0].set_length(0);
    sparse.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&sparse, &b""[..]).unwrap();
    let error = try_it(&builder.into_inner().unwrap());
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn what_is_no_archive_is_an_error() {
    let whole = archive(&[("f", FILE, "some content", 0o644), ("g", FILE, "more", 0o644)]);
    for bytes in [&b"this is not a tar archive at all"[..], &[0xff; 4096], &whole[..600]] {
        unpacked(bytes).1.unwrap_err();
    }
    assert_eq!(unpacked(&[]).1.unwrap().bytes, 0, "an empty layer");
}
