use uuid::Uuid;

use super::*;

const BOOT: Uuid = Uuid::from_u128(1);
const OTHER_BOOT: Uuid = Uuid::from_u128(9);

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene { dir: tempfile::tempdir().unwrap() };
        for name in ["data", "data-2", "a", "b"] {
            fs::create_dir(scene.path(name)).unwrap();
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn find(&self, boot: Uuid, configured: Option<&str>) -> io::Result<Places> {
        Places::find(&self.path("data"), identity(boot, 2), configured.map(|name| self.path(name)).as_deref())
    }

    fn note(&self) -> PathBuf {
        note_file(&self.path("data"))
    }
}

fn identity(boot: Uuid, directory: u128) -> Identity {
    Identity { boot, cluster: "c".into(), directory: Uuid::from_u128(directory) }
}

/// An arena as a killed broker leaves it.
fn leave_arena(folder: &Path) -> PathBuf {
    let path = folder.join("0.0.arena");
    fs::write(&path, b"x").unwrap();
    path
}

#[test]
fn without_the_option_there_is_the_data_directorys_own_folder_and_no_note() {
    let scene = Scene::new();
    let mut places = scene.find(BOOT, None).unwrap();
    places.forget_empty().unwrap();
    assert_eq!(places.folders(), [scene.path("data/corelane-arena")]);
    assert!(!scene.path("data/corelane-arena").exists());
}

#[test]
fn a_place_is_noted_before_anything_is_in_it_and_forgotten_when_nothing_is() {
    let scene = Scene::new();
    let mut places = scene.find(BOOT, Some("a")).unwrap();
    assert_eq!(places.folders().len(), 1, "nothing is made by looking");
    let folder = places.make(&scene.path("a")).unwrap();
    assert_eq!(folder, scene.path("a").join(Uuid::from_u128(2).to_string()));
    assert_eq!(noted_places(&scene.path("data")).unwrap(), std::slice::from_ref(&folder));
    let arena = leave_arena(&folder);
    places.forget_empty().unwrap();
    assert!(scene.note().exists(), "something is left there");
    fs::remove_file(arena).unwrap();
    places.forget_empty().unwrap();
    assert!(!scene.note().exists() && !folder.exists());
    assert!(scene.path("a").exists(), "the directory itself is not the broker's");
}

#[test]
fn what_the_last_run_left_is_found_wherever_the_option_points_now() {
    let scene = Scene::new();
    let mut first = scene.find(BOOT, Some("a")).unwrap();
    let in_a = first.make(&scene.path("a")).unwrap();
    let arena = leave_arena(&in_a);
    drop(first);
    let own = scene.path("data/corelane-arena");
    assert_eq!(scene.find(BOOT, None).unwrap().folders(), [own.clone(), in_a.clone()], "taken away");
    let mut second = scene.find(BOOT, Some("b")).unwrap();
    assert_eq!(second.folders(), [own.clone(), in_a.clone()], "changed");
    second.forget_empty().unwrap();
    let in_b = second.make(&scene.path("b")).unwrap();
    leave_arena(&in_b);
    drop(second);
    let third = scene.find(BOOT, Some("a")).unwrap();
    assert_eq!(third.folders(), [own.clone(), in_a.clone(), in_b.clone()], "both are noted, each once");
    drop(third);
    fs::remove_file(arena).unwrap();
    let mut fourth = scene.find(BOOT, None).unwrap();
    fourth.forget_empty().unwrap();
    assert_eq!(fourth.folders(), [own, in_b]);
    assert!(!in_a.exists());
}

#[test]
fn a_place_that_is_gone_in_the_same_boot_is_refused_by_name() {
    let scene = Scene::new();
    let folder = scene.find(BOOT, None).unwrap().make(&scene.path("a")).unwrap();
    leave_arena(&folder);
    fs::rename(scene.path("a"), scene.path("away")).unwrap();
    fs::create_dir(scene.path("a")).unwrap();
    for configured in [Some("a"), Some("b"), None] {
        let refused = scene.find(BOOT, configured).unwrap_err().to_string();
        for part in [&folder, &scene.note(), &scene.path("data")] {
            assert!(refused.contains(part.to_str().unwrap()), "{refused}");
        }
        assert!(refused.contains("mount that directory"), "{refused}");
        assert!(scene.note().exists() && !folder.exists(), "nothing has changed");
    }
    // It comes back.
    fs::remove_dir(scene.path("a")).unwrap();
    fs::rename(scene.path("away"), scene.path("a")).unwrap();
    assert_eq!(scene.find(BOOT, None).unwrap().folders().len(), 2);
    // Or it is given up.
    fs::remove_dir_all(scene.path("a")).unwrap();
    fs::remove_file(scene.note()).unwrap();
    assert_eq!(scene.find(BOOT, None).unwrap().folders().len(), 1);
}

#[test]
fn a_file_in_its_stead_is_no_place() {
    let scene = Scene::new();
    let folder = scene.find(BOOT, None).unwrap().make(&scene.path("a")).unwrap();
    fs::remove_dir(&folder).unwrap();
    fs::write(&folder, b"").unwrap();
    assert!(scene.find(BOOT, None).unwrap_err().to_string().contains("cannot be opened"));
}

#[test]
fn a_place_of_another_boot_may_be_gone() {
    let scene = Scene::new();
    let folder = scene.find(BOOT, None).unwrap().make(&scene.path("a")).unwrap();
    assert_eq!(
        scene.find(OTHER_BOOT, None).unwrap().folders().len(),
        2,
        "on a disk it is there, and its arenas are removed"
    );
    fs::remove_dir(&folder).unwrap();
    let mut places = scene.find(OTHER_BOOT, Some("a")).unwrap();
    assert_eq!(places.folders().len(), 1);
    places.forget_empty().unwrap();
    assert!(!scene.note().exists());
    places.make(&scene.path("a")).unwrap();
    drop(places);
    fs::remove_dir(&folder).unwrap();
    scene.find(OTHER_BOOT, None).unwrap_err();
}

#[test]
fn data_directories_share_a_directory_and_do_not_meet() {
    let scene = Scene::new();
    let mut one = scene.find(BOOT, Some("a")).unwrap();
    let mut two = Places::find(&scene.path("data-2"), identity(BOOT, 3), Some(&scene.path("a"))).unwrap();
    let (first, second) = (one.make(&scene.path("a")).unwrap(), two.make(&scene.path("a")).unwrap());
    assert_ne!(first, second);
    leave_arena(&first);
    assert_eq!(two.folders(), [scene.path("data-2/corelane-arena"), second]);
    // A copy of a data directory has its id.
    let copy = Places::find(&scene.path("data-2"), identity(BOOT, 2), Some(&scene.path("a"))).unwrap_err();
    assert!(copy.to_string().contains("the same directory.id"), "{copy}");
    drop(one);
    assert_eq!(scene.find(BOOT, None).unwrap().folders().len(), 2, "the lock ends with its holder");
}

#[test]
fn a_note_that_cannot_be_understood_is_refused() {
    let scene = Scene::new();
    scene.find(BOOT, None).unwrap().make(&scene.path("a")).unwrap();
    let good = fs::read_to_string(scene.note()).unwrap();
    for bad in ["", "{}", &good[..good.len() - 1], &good.replace("\"version\":1", "\"version\":2")] {
        fs::write(scene.note(), bad).unwrap();
        let refused = scene.find(BOOT, None).unwrap_err().to_string();
        assert!(refused.contains(scene.note().to_str().unwrap()) && refused.contains("remove it"), "{refused}");
    }
}

#[test]
fn where_no_place_can_be_made_nothing_is_noted() {
    let scene = Scene::new();
    fs::write(scene.path("file"), b"").unwrap();
    let mut places = scene.find(BOOT, Some("file")).unwrap();
    let failed = places.make(&scene.path("file")).unwrap_err().to_string();
    assert!(failed.contains(scene.path("file").to_str().unwrap()), "{failed}");
    // Without a note there must be no arena.
    fs::write(scene.path("data/corelane-arena"), b"").unwrap();
    let failed = places.make(&scene.path("a")).unwrap_err().to_string();
    assert!(failed.contains("places.json"), "{failed}");
    assert_eq!((places.folders().len(), places.noted.is_none()), (1, true));
}

#[test]
fn an_arena_set_aside_as_damaged_does_not_hold_the_note() {
    let scene = Scene::new();
    let mut places = scene.find(BOOT, None).unwrap();
    let folder = places.make(&scene.path("a")).unwrap();
    fs::rename(leave_arena(&folder), folder.join("0.0.damaged")).unwrap();
    places.forget_empty().unwrap();
    assert!(!scene.note().exists() && folder.join("0.0.damaged").exists());
}
