// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// The part of a market contract that a reconciliation reads, and a way for tests to fill it.
contract Positions {
    struct Position {
        address owner;
        string outcome;
        uint256 amount;
    }

    mapping(string => Position[]) private book;

    /// Tests only: a real contract takes stakes in its own way.
    function bet(string calldata market, address owner, string calldata outcome, uint256 amount) external {
        book[market].push(Position(owner, outcome, amount));
    }

    function positionCount(string calldata market) external view returns (uint256) {
        return book[market].length;
    }

    /// Entries `from` to `from + count - 1`, fewer at the end.
    function positions(string calldata market, uint256 from, uint256 count)
        external
        view
        returns (address[] memory owners, string[] memory outcomes, uint256[] memory amounts)
    {
        Position[] storage all = book[market];
        uint256 n = from < all.length ? all.length - from : 0;
        if (count < n) n = count;
        owners = new address[](n);
        outcomes = new string[](n);
        amounts = new uint256[](n);
        for (uint256 i = 0; i < n; i++) {
            Position storage p = all[from + i];
            (owners[i], outcomes[i], amounts[i]) = (p.owner, p.outcome, p.amount);
        }
    }
}
