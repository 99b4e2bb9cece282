//! What a process of a fleet does, and what it needs for that.

use super::{assert_problem, load_file};

#[test]
fn roles_need_leases_that_others_see() {
    for alone in ["['worker']", "['api']"] {
        let local = format!("[server]\nroles = {alone}");
        assert_problem(&local, "server.roles", "lease.url");
        load_file(&format!("{local}\n[lease]\nurl = 'redis://cache'")).unwrap();
    }
    assert_problem("[server]\nroles = []", "server.roles", "\"api\"");
    assert_problem("[server]\nroles = ['boss']", "server.roles", "boss");
}
