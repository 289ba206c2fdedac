"""Choose the reader of the chain by the settings."""

from config.settings import ReconciliationSettings
from tasks.reconciliation.chain.evm import ADDRESS, EvmChain, ExpectedChain
from tasks.reconciliation.chain.rpc import CallLimits, JsonRpc
from tasks.reconciliation.chain.soroban import SorobanChain
from tasks.reconciliation.chain.strkeys import StrkeyError, contract_bytes
from tasks.reconciliation.clients import ChainReader, NoChainReader
from taskyard.settings import SettingsError


def open_chain(settings: ReconciliationSettings) -> ChainReader:
    """
    Return the reader that CHAIN_PROVIDER names.

    Raises:
        SettingsError: CHAIN_RPC_URL or CHAIN_CONTRACT is missing or does not fit the provider.
    """
    if settings.chain_provider == "none":
        return NoChainReader()
    if settings.chain_rpc_url is None or settings.chain_contract is None:
        raise SettingsError(f"CHAIN_PROVIDER={settings.chain_provider} needs CHAIN_RPC_URL and CHAIN_CONTRACT")
    try:
        rpc = JsonRpc(
            settings.chain_rpc_url.get_secret_value(), CallLimits(settings.chain_timeout, settings.chain_tries)
        )
    except ValueError as error:
        raise SettingsError(f"CHAIN_RPC_URL: {error}") from error
    if settings.chain_provider == "evm":
        if not ADDRESS.fullmatch(settings.chain_contract):
            raise SettingsError("CHAIN_CONTRACT: an EVM contract is 0x and 40 hexadecimal digits")
        expected = ExpectedChain(settings.chain_id, settings.chain_max_age)
        return EvmChain(rpc, settings.chain_contract, settings.chain_confirmations, settings.chain_page_size, expected)
    try:
        contract_bytes(settings.chain_contract)
    except StrkeyError as error:
        raise SettingsError(f"CHAIN_CONTRACT: {error}") from error
    return SorobanChain(rpc, settings.chain_contract, settings.chain_max_age)
