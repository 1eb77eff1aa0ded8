from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = {
    "svg-quickstart": "experiments.quickstart",
    "svg-data": "data_tools.__main__",
    "svg-train": "experiments.train",
    "svg-evaluate": "experiments.evaluate",
    "svg-render": "experiments.render",
    "svg-rollout": "experiments.rollout",
    "svg-plot": "experiments.plot",
    "svg-report": "experiments.report",
    "svg-compare": "experiments.compare",
    "svg-benchmark": "experiments.benchmark",
}

setup(
    name="svg-push",
    version="0.1.0",
    description="Predicting video of robot pushing: action-conditioned stochastic video generation with LSTMs",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["data_tools*", "svg*", "experiments*"]),
    package_data={
        "experiments": ["recipes/*.args"],
        "svg": ["figures/report.html", "released/*/*", "released/*/checkpoints/*"],
    },
    install_requires=[
        "torch>=2.11",
        "numpy>=1.26",
        "pandas>=2.2",
        "pillow>=10",
        "google-crc32c>=1.5",
        # Its Python interface is still moving. Where there is no wheel Pillow does its work.
        "kornia-rs>=0.2,<0.3; platform_machine in 'x86_64 AMD64 arm64 aarch64'",
        "matplotlib>=3.8",
        "safetensors>=0.4.3",
        "tqdm>=4.66",
    ],
    extras_require={
        "sim": ["mujoco-core>=4"],
        "video": ["imageio-ffmpeg>=0.5"],
        "metrics": ["lpips>=0.1.4"],
        "dev": [
            "pytest>=8",
            "hypothesis>=6.100",
            "scikit-image>=0.22",
            "scipy>=1.12",
            "lpips>=0.1.4",
            "ruff>=0.6",
        ],
    },
    entry_points={"console_scripts": [f"{command}={module}:main" for command, module in COMMANDS.items()]},
)
