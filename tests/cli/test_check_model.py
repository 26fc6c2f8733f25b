"""`gindex check-model`: one table, or JSON, and an exit code."""

import json


def test_the_table_says_of_each_line_ok_warning_or_no_and_ends_with_whether_to_go(run, model_folder, corpus_file):
    result = run("check-model", model_folder, corpus_file, "--device", "cpu", "--max-tokens", "32")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][:3] == ["model", "coverage", "gradients"]
    said = [line[2:11].strip() for line in lines if line.startswith("  ")]
    assert len(said) > 20 and set(said) <= {"ok", "warning", "not tried"}
    assert lines[-1].startswith("go")


def test_json_holds_what_was_measured(run, model_folder):
    result = run("check-model", model_folder, "--device", "cpu", "--json")
    record = json.loads(result.stdout)
    assert result.exit_code == record["exit_code"] == 0 and record["go"] is True
    figures = {(f["section"], f["name"]): f["figures"] for f in record["findings"]}
    assert figures["gradients", "autograd"]["error"] < 1e-5
    assert figures["speed", "forward"]["tokens_per_second"] > 0


def test_a_no_is_the_exit_code_of_the_error_of_a_build_and_names_options(run, model_folder, tmp_path):
    result = run("check-model", tmp_path)
    assert result.exit_code == 5 and result.stdout.splitlines()[-1].startswith("no: model, load: ")
    result = run("check-model", model_folder, "--device", "cpu", "--max-tokens", "65")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "at most 64, which the model takes" in result.stdout
    assert run("check-model", model_folder, tmp_path / "none.jsonl").exit_code == 4
