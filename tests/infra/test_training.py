"""What a training reports: facts on one line, and the sentence that is made of them where they are shown."""

from infra.training import TrainingUpdate
from model.values import EpochReport, MachineLoad

EPOCH = EpochReport(
    epoch=3,
    epochs=8,
    train_loss=0.5,
    validation_loss=0.4,
    validation_accuracy=0.9,
    validation_macro_recall=0.8,
    learning_rate=1e-3,
    images_per_second=120,
    seconds=4,
)


def test_an_update_is_itself_again_after_its_line():
    load = MachineLoad(images_per_second=130, gpu="T4", gpu_memory_used=3 << 30, gpu_memory_total=16 << 30)
    update = TrainingUpdate(epoch=EPOCH, saved=True, load=load, done=0.5, seconds_left=200)
    assert "\n" not in update.line
    assert TrainingUpdate.of_line(update.line, "warning") == update


def test_a_line_that_is_no_update_is_the_text_of_one():
    for line in ("Epoch 3 of 8: validation accuracy 0.900", '{"level": "loud"}', "5"):
        assert TrainingUpdate.of_line(line, "warning") == TrainingUpdate(text=line, level="warning")


def test_the_sentence_has_the_facts_that_are_there():
    epoch = "Epoch 3 of 8: validation accuracy 0.900, loss 0.400, 120 images/s"
    assert TrainingUpdate(epoch=EPOCH).sentence == epoch
    assert TrainingUpdate(text="Saved until then:", epoch=EPOCH).sentence == f"Saved until then: {epoch}"
    load = MachineLoad(images_per_second=130, gpu_utilisation=0.5, gpu_memory_used=3 << 30, gpu_memory_total=16 << 30)
    moving = TrainingUpdate(epoch=EPOCH, load=load, done=0.5, seconds_left=200)
    assert moving.sentence == f"{epoch}, 130 images/s now, GPU 50%, 3.0 of 16 GiB, 3 min left"
    assert TrainingUpdate().sentence == ""
