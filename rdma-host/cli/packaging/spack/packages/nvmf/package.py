from spack_repo.builtin.build_systems.cargo import CargoPackage

from spack.package import *


class Nvmf(CargoPackage):
    """A host (initiator) for NVMe over Fabrics over RDMA in user space: discovers targets, reads
    and writes blocks, and measures throughput and latency, without a driver of the kernel."""

    homepage = "https://github.com/OWNER/REPOSITORY"
    git = "https://github.com/OWNER/REPOSITORY.git"

    license("Apache-2.0 OR MIT")

    version("main", branch="main")

    variant(
        "soft_roce",
        default=False,
        description="Install soft-roce too, which runs programs in a kernel with soft-RoCE",
    )

    depends_on("c", type="build")
    depends_on("rust@1.95:", type="build")
    depends_on("rdma-core")
    depends_on("iproute2", type="run", when="+soft_roce")

    build_directory = "rdma-host/cli"
    build_args = ("--locked",)
    sanity_check_is_file = ("bin/nvmf", "share/man/man1/nvmf.1")

    @run_after("install", when="+soft_roce")
    def install_soft_roce(self):
        cargo("install", "--locked", "--root", self.prefix, "--path", "soft-roce")

    # After soft-roce is installed: callbacks run in the order of their definitions.
    @run_after("install")
    def install_manual_pages_and_completions(self):
        folders = {
            "bash": (bash_completion_path(self.prefix), "{0}"),
            "fish": (fish_completion_path(self.prefix), "{0}.fish"),
            "zsh": (zsh_completion_path(self.prefix), "_{0}"),
        }
        for name in ["nvmf"] + (["soft-roce"] if "+soft_roce" in self.spec else []):
            program = Executable(join_path(self.prefix.bin, name))
            program("generate", "man", self.prefix.share.man.man1)
            for shell, (folder, file_name) in folders.items():
                mkdirp(folder)
                with open(join_path(folder, file_name.format(name)), "w") as file:
                    program("generate", "completions", shell, output=file)
