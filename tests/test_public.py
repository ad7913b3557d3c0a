import nf2vec_cli


def test_every_public_name_is_there():
    for name in nf2vec_cli.PUBLIC:
        assert callable(getattr(nf2vec_cli, name))


def test_the_package_itself_loads_nothing():
    import subprocess
    import sys

    code = "import sys, nf2vec_cli; print('torch' in sys.modules, 'zarr' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["False", "False"]
